"""Decoder-only language models: Hugging Face's GPT-2 and Llama, with varied width, depth and heads."""

import random

from ghn.spaces.architecture import Architecture


def sample_gpt2(rng: random.Random, vocabulary: int, length: int) -> Architecture:
    """Draw one causal language model for sequences of ``length`` tokens out of ``vocabulary``."""
    heads = rng.randint(1, 4)
    width, depth = heads * rng.choice((16, 24, 32)), rng.randint(1, 6)
    if rng.random() < 0.3:
        kwargs = {
            "hidden_size": width,
            "intermediate_size": int(width * rng.choice((2, 3, 4))),
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": length,
        }
        return Architecture(
            spec="hf:llama:AutoModelForCausalLM",
            kwargs={**kwargs, "vocab_size": vocabulary},
            family="llama",
            task="text",
        )
    kwargs = {
        "n_embd": width,
        "n_layer": depth,
        "n_head": heads,
        "n_positions": length,
        "vocab_size": vocabulary,
    }
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return Architecture(
        spec="hf:gpt2:AutoModelForCausalLM", kwargs={**kwargs, **dropout}, family="gpt2", task="text"
    )
