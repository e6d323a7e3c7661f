"""The computation graph of a model, what can be read off it, and how it is encoded and drawn."""
