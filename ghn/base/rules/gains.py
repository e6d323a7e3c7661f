"""Gains that several rules share: standard deviation of a map's entries times the root of its fan-in."""

import math

DEFAULT_GAIN = math.sqrt(1 / 3)
"""Gain of torch's default linear map and convolution: uniform within ``1 / sqrt(fan_in)``."""

RELU_GAIN = math.sqrt(2)
"""Gain that keeps the size of activations through rectifiers: He et al., https://arxiv.org/abs/1502.01852."""
