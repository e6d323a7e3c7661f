"""Data sets as tensors: images to classify and text to model, embedded ones or any of Hugging Face ``datasets``."""
