"""Rules for arguments that only a few transformers models take: series, prompts, robots, proteins, questions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ghn.models.hf_facts import LENGTH, Facts

VISUAL = 4
"""Regions of an image that come as features rather than pixels."""


def _past(facts: Facts) -> int:
    """Steps that a forecaster is shown: its context, and what its lags reach back to."""
    context = facts.find("context_length", default=LENGTH)
    return int(context) + max(facts.find("lags_sequence", default=(0,)))


def _series(facts: Facts, steps: int) -> tuple[int, ...]:
    channels = int(facts.find("num_input_channels", "input_size", default=1))
    return (facts.batch, steps) if _lagged(facts) and channels == 1 else (facts.batch, steps, channels)


def _values(facts: Facts) -> Any:
    if facts.find("patch_length") and not facts.find("num_input_channels"):  # TimesFM: series of any length
        return facts.floats(facts.batch, int(facts.config.context_length))
    return facts.floats(*_series(facts, _past(facts)))


def _future(facts: Facts) -> Tensor | None:
    return facts.floats(*_series(facts, facts.config.prediction_length)) if _lagged(facts) else None


def _lagged(facts: Facts) -> bool:
    """Whether a forecaster reads its own past values again (Informer), rather than patches of them (PatchTST)."""
    return facts.find("lags_sequence") is not None


def _times(facts: Facts, steps: int) -> Tensor:
    return facts.floats(facts.batch, steps, facts.config.num_time_features)


def _anything(facts: Facts) -> Tensor | None:
    """Perceiver without a head reads vectors of whatever; with one, it takes the same argument by another name too."""
    if facts.kind != "perceiver" or facts.takes("input_ids") or facts.takes("pixel_values"):
        return None
    return facts.floats(facts.batch, LENGTH, facts.config.d_model)


def _masks(facts: Facts) -> dict[str, Any]:
    """A mask of an object drawn by hand, four times as fine as the image's patches."""
    side = 4 * (facts.image_size(1024)[0] // facts.patch_size()[0])
    return {"input_masks": facts.floats(facts.batch, 1, side, side)}


def _boxes(facts: Facts) -> Tensor:
    return torch.tensor([[[8.0, 8.0, 64.0, 64.0]]]).expand(facts.batch, -1, -1)


SPECIAL_ARGUMENTS: dict[str, Callable[[Facts], Any]] = {
    # time series
    "past_values": _values,
    "past_time_features": lambda facts: _times(facts, _past(facts)),
    "past_observed_mask": lambda facts: torch.ones(_series(facts, _past(facts))) if _lagged(facts) else None,
    "future_values": _future,
    "future_time_features": lambda facts: _times(facts, facts.config.prediction_length),
    "past_values_padding": lambda facts: torch.zeros(
        facts.batch, facts.config.context_length, dtype=torch.long
    ),
    "freq": lambda facts: torch.zeros(facts.batch, 1, dtype=torch.long),
    # points, boxes and masks that say what to segment
    "input_points": lambda facts: facts.integers(facts.batch, 1, 2, 2, high=64).float(),
    "input_labels": lambda facts: torch.tensor([[[0, 1]]]).expand(facts.batch, -1, -1),
    "input_boxes": _boxes,
    "prompt_pixel_values": lambda facts: facts.floats(facts.batch, facts.channels(), *facts.image_size()),
    "prompt_masks": lambda facts: facts.floats(facts.batch, facts.channels(), *facts.image_size()),
    "codebook_pixel_values": lambda facts: facts.floats(facts.batch, 3, 112, 112),
    "task_inputs": lambda facts: facts.integers(facts.batch, facts.config.task_seq_len, high=100),
    # regions of images
    "visual_feats": lambda facts: facts.floats(facts.batch, VISUAL, facts.config.visual_feat_dim),
    "visual_pos": lambda facts: facts.floats(facts.batch, VISUAL, facts.config.visual_pos_dim),
    "visual_embeds": lambda facts: facts.floats(facts.batch, VISUAL, facts.config.visual_embedding_dim),
    "query_embeds": lambda facts: facts.floats(facts.batch, VISUAL, facts.config.hidden_size),
    "speaker_embeddings": lambda facts: facts.floats(
        facts.batch, facts.find("speaker_embedding_dim", default=512)
    ),
    "decoder_input_values": lambda facts: facts.floats(facts.batch, LENGTH, facts.config.num_mel_bins),
    # sound that is cut into frames already; True marks the ones to leave out
    "audio_mel": lambda facts: facts.floats(facts.batch, 64, facts.config.input_feat_size),
    "audio_mel_mask": lambda facts: torch.zeros(facts.batch, 64, dtype=torch.bool),
    "latents": lambda facts: facts.floats(facts.batch, facts.find("latent_dim", "hidden_size"), LENGTH),
    # anything at all
    "inputs": _anything,
    # robots and games
    "state": lambda facts: (
        facts.floats(facts.batch, facts.config.max_state_dim) if facts.find("max_state_dim") else None
    ),
    "states": lambda facts: facts.floats(facts.batch, LENGTH, facts.config.state_dim),
    "actions": lambda facts: (
        facts.floats(facts.batch, LENGTH, facts.config.act_dim) if facts.takes("states") else None
    ),
    "returns_to_go": lambda facts: facts.floats(facts.batch, LENGTH, 1),
    "timesteps": lambda facts: (
        facts.integers(facts.batch, LENGTH, high=LENGTH) if facts.takes("states") else None
    ),
    # questions with marked options
    "marks": lambda facts: torch.tensor([[LENGTH // 2, LENGTH]]),
    "num_options": lambda facts: torch.tensor([[2, 2]]),
    "question_type_ids": lambda facts: torch.tensor([[0, 1]]),
    # proteins
    "protein_input_ids": lambda facts: facts.tokens(
        facts.batch, LENGTH, vocabulary=facts.part("protein_encoder_config").vocab_size
    ),
    "protein_attention_mask": lambda facts: torch.ones(facts.batch, LENGTH, dtype=torch.long),
}
"""Argument name -> its value, as ``ghn.models.hf_inputs.ARGUMENTS``."""

FURTHER: dict[str, Callable[[Facts], dict[str, Any]]] = {
    # A vector stands for the mask that isn't there.
    "input_masks": _masks,
}
"""Argument that a model takes -> what a further call changes in the arguments of the first."""
