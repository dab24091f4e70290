"""Honest measurement: real data, a protocol without leaks, the same ranking code that serves."""
