"""Simulated rounds on a made-up world: nothing held out is ever shown, and what is shown is what the service shows."""
