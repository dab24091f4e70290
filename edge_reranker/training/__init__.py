"""Makes a pack from public or consented interaction logs, offline."""
