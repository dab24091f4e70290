"""What the user's own feedback teaches: from lists that were shown to weights, and a gate."""
