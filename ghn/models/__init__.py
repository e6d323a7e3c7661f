"""Architectures by name, and inputs to run them on: the only place (with ``ghn.spaces``) that knows model zoos."""

from ghn.models.load import ZOOS, example_inputs, list_models, load_model, zoo_of

__all__ = ["ZOOS", "example_inputs", "list_models", "load_model", "zoo_of"]
