"""Graph hypernetworks: initialize any PyTorch model with predicted weights."""
