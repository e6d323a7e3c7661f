"""Evaluate initializations over the held-out architectures, and rank architectures before training."""
