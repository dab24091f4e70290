"""Makes the GGUF that this device should run, and measures that it ranks the same."""
