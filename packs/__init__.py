"""The packs that ship: one folder each."""
