"""Models of text, and of series."""

import torch

from ghn.models.hf_facts import LENGTH
from ghn.models.hf_families.family import Family, each

TEXT: dict[str, Family] = {
    # Entropies of the next bytes cut a text into patches; one byte leaves nothing to be cut.
    "blt": Family(arguments=lambda facts: {"input_ids": facts.tokens(facts.batch, 1)}),
    # Compressed attention reads whole windows only.
    "deepseek_v4": Family(
        arguments=lambda facts: {
            "input_ids": facts.tokens(facts.batch, 2 * max(facts.config.compress_rates.values()))
        }
    ),
    "splinter": Family(
        arguments=lambda facts: {
            "input_ids": facts.tokens(1, LENGTH).index_fill(
                1, torch.tensor([3]), facts.config.question_token_id
            )
        }
    ),
    # Numbers that are missing, or don't go together.
    "deepseek_v2": Family(repairs={"num_experts_per_tok": 6, "topk_group": 3, "n_group": 8}),
    "granitemoehybrid": Family(repairs={"layer_types": [*["mamba"] * 3, "attention"] * 8}),
    "xmod": Family(repairs={"default_language": "en_XX"}),
    "reformer:ReformerModelWithLMHead": Family(repairs={"is_decoder": True}),
    **each("autoformer", "informer", "time_series_transformer", repairs={"prediction_length": 8}),
}
