"""Decoder-only language models: Hugging Face's GPT-2 and Llama, with varied width, depth, heads and blocks."""

import random
from typing import Any

from ghn.spaces.architecture import Architecture

NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
"""For GPT-2, whose default of 0.1 is made for many passes over the data."""


def sample_causal_lm(rng: random.Random, vocabulary: int, length: int, scale: str = "small") -> Architecture:
    """Draw one causal language model.

    Args:
        rng: Random numbers.
        vocabulary: Token ids.
        length: Tokens of a sequence.
        scale: 'small', or 'full' for depth 3 to 9 and width 72 to 256.
    """
    full = scale == "full"
    heads = rng.choice((3, 4, 6, 8) if full else (1, 2, 3, 4))
    per_head = [size for size in range(8, 65, 8) if 72 <= heads * size <= 256] if full else [16, 24, 32]
    width, depth = heads * rng.choice(per_head), rng.randint(3, 9) if full else rng.randint(1, 6)
    hidden = width * rng.choice((2, 3, 4))
    if rng.random() < 0.35:
        spec, family, kwargs = "hf:llama:AutoModelForCausalLM", "llama", _llama(rng, heads)
        kwargs |= {"hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": depth}
        kwargs |= {"max_position_embeddings": length}
    else:
        spec, family, kwargs = "hf:gpt2:AutoModelForCausalLM", "gpt2", _gpt2(rng, heads)
        kwargs |= {"n_embd": width, "n_inner": hidden, "n_layer": depth, "n_positions": length}
    kwargs["vocab_size"] = vocabulary
    return Architecture(spec=spec, kwargs=kwargs, family=family, depth=depth, width=width, task="text")


def _llama(rng: random.Random, heads: int) -> dict[str, Any]:
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": rng.choice([count for count in range(1, heads + 1) if heads % count == 0]),
        "hidden_act": rng.choice(("silu", "silu", "gelu")),
        "tie_word_embeddings": rng.random() < 0.5,
    }


def _gpt2(rng: random.Random, heads: int) -> dict[str, Any]:
    return {
        "n_head": heads,
        "activation_function": rng.choice(("gelu_new", "gelu_new", "relu", "silu")),
        "tie_word_embeddings": rng.random() < 0.8,
        **NO_DROPOUT,
    }
