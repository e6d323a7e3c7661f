"""Evaluate initializations over the held-out architectures."""
