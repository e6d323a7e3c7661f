"""Train a hypernetwork over many targets."""
