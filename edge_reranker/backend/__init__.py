"""What a backend runs over its items: a catalogue in, vectors out, on one machine or many."""
