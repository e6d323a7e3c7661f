"""Architectures by name, and inputs to run them on; model zoos are imported here and in ``ghn.spaces``."""

from ghn.models.load import ZOOS, example_calls, example_inputs, list_models, load_model, zoo_of

__all__ = ["ZOOS", "example_calls", "example_inputs", "list_models", "load_model", "zoo_of"]
