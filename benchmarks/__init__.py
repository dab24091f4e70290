"""Speed and quality on the real thing, as ratios within one run. Each benchmark ends with one JSON line."""
