"""Text of others, on a terminal."""

from __future__ import annotations


def plain(text: str) -> str:
    """``text`` on one line, with what could steer a terminal or turn the writing round shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
