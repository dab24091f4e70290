"""Features, vectors, fusion and list policy: arrays in, arrays out."""
