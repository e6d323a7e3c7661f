"""The start that needs no training: an initialization rule for every parameter, and the numbers drawn by it."""
