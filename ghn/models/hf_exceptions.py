"""Model types whose arguments differ from what their names say elsewhere."""

from collections.abc import Callable
from typing import Any

import torch

from ghn.models.hf_facts import LENGTH, Facts

PIXEL_LAYOUTS: dict[str, str] = {
    **dict.fromkeys(
        ("idefics", "idefics2", "idefics3", "smolvlm", "granite_docling", "ultravbert", "modernvbert"),
        "bnchw",
    ),
    **dict.fromkeys(("deepseek_vl", "deepseek_vl_hybrid", "janus"), "bchw"),
    **dict.fromkeys(("videomae", "vivit", "timesformer", "xclip", "tvp"), "btchw"),
    **dict.fromkeys(("kimi_k25", "kimi_k25_vision"), "pcyx"),
}
"""Axes of ``pixel_values`` that aren't (b, c, h, w): also n images, t frames, or p patches of size (y, x)."""

PHI_FRAMES = 128
"""Columns of a spectrogram for Phi-4."""
FUYU_PATCHES = 4
"""Patches of an image for Fuyu, which takes them as flat rows of any number."""


def _crop_features(facts: Facts) -> int:
    """Phi-4: a thumbnail and one crop, 2 x 2 patches pooled, each row with its end, and a separator."""
    side = facts.config.vision_config.crop_size // facts.config.vision_config.patch_size // 2
    return 2 * int(side) * (int(side) + 1) + 1


TOKENS_PER_IMAGE: dict[str, Callable[[Facts], int]] = {
    "idefics2": lambda facts: int(facts.config.perceiver_config.resampler_n_latents),
    **dict.fromkeys(
        ("idefics3", "smolvlm", "modernvbert", "ultravbert"),
        lambda facts: facts.patches() // facts.find("scale_factor", "pixel_shuffle_factor") ** 2,
    ),
    "fuyu": lambda facts: FUYU_PATCHES,
    "phi4_multimodal": _crop_features,
    "aria": lambda facts: int(max(facts.config.projector_patch_to_query_dict.values())),
    **dict.fromkeys(("blip-2", "instructblip"), lambda facts: int(facts.config.num_query_tokens)),
    "instructblipvideo": lambda facts: 4 * int(facts.config.num_query_tokens),
    **dict.fromkeys(("deepseek_vl", "deepseek_vl_hybrid", "janus"), lambda facts: facts.patches()),
}
"""Model type -> image features that join the sequence, where running its tower alone doesn't tell."""

TOKENS_PER_SOUND: dict[str, Callable[[Facts], int]] = {
    "phi4_multimodal": lambda facts: PHI_FRAMES // int(facts.config.audio_config.time_reduction),
    **dict.fromkeys(
        ("qwen2_audio", "musicflamingo"),
        lambda facts: int(facts.config.audio_config.max_source_positions) // 2,
    ),
    "gemma3n": lambda facts: int(facts.config.audio_soft_tokens_per_image),
}
"""Model type -> audio features that join the sequence, likewise."""


def _position_mask(facts: Facts) -> dict[str, Any]:
    """Kosmos marks the places of image features in a mask of its own."""
    features = facts.find("latent_query_num")
    ids = facts.tokens(facts.batch, LENGTH + features)
    mask = torch.zeros_like(ids)
    mask[:, 2 : 2 + features] = 1
    tall, wide = facts.patch_size()
    patches = facts.floats(facts.batch, 64, 2 + tall * wide * facts.channels()).abs().ceil()
    return {"input_ids": ids, "image_embeds_position_mask": mask, "flattened_patches": patches}


def _tiles(facts: Facts) -> dict[str, Any]:
    tiles = facts.config.vision_config.max_num_tiles
    return {
        "pixel_values": facts.floats(facts.batch, 1, tiles, facts.channels(), *facts.image_size()),
        "aspect_ratio_ids": torch.ones(facts.batch, 1, dtype=torch.long),
        "aspect_ratio_mask": torch.ones(facts.batch, 1, tiles, dtype=torch.long),
        "cross_attention_mask": torch.ones(facts.batch, LENGTH, 1, tiles, dtype=torch.long),
    }


def _square(size: int) -> Callable[[Facts], dict[str, Any]]:
    return lambda facts: {"pixel_values": facts.floats(facts.batch, facts.channels(), size, size)}


def _crops(facts: Facts) -> dict[str, Any]:
    """Phi-4: an image as a thumbnail and one crop, every patch of them real; a spectrogram with its length."""
    vision = facts.config.vision_config
    patches = vision.crop_size // vision.patch_size
    return {
        "image_pixel_values": facts.floats(1, 2, facts.channels(), vision.crop_size, vision.crop_size),
        "image_sizes": torch.tensor([[vision.crop_size, vision.crop_size]]),
        "image_attention_mask": torch.ones(1, 2, patches, patches, dtype=torch.long),
        "audio_input_features": facts.floats(1, PHI_FRAMES, facts.config.audio_config.input_size),
        "audio_embed_sizes": torch.tensor([TOKENS_PER_SOUND["phi4_multimodal"](facts)]),
    }


EXCEPTIONS: dict[str, Callable[[Facts], dict[str, Any]]] = {
    # Its mask is of features rather than frames.
    **dict.fromkeys(("granite_speech", "granite_speech_plus"), lambda facts: {"input_features_mask": None}),
    **dict.fromkeys(("kosmos-2", "kosmos-2.5"), _position_mask),
    "mllama": _tiles,
    "qwen3_asr": lambda facts: {
        "input_features": facts.floats(1, facts.find("num_mel_bins"), 4 * facts.find("n_window"))
    },
    "neomme": lambda facts: {"pixel_values": facts.floats(FUYU_PATCHES, facts.config.patch_dim)},
    "vibevoice_asr": lambda facts: {"input_values": facts.floats(1, 1, 24000)},
    "mllama_text_model": lambda facts: {
        "cross_attention_states": facts.floats(facts.batch, LENGTH, facts.config.hidden_size)
    },
    "idefics": lambda facts: {"image_attention_mask": torch.ones(facts.batch, LENGTH, 1, dtype=torch.long)},
    "granite_docling": lambda facts: {"pixel_attention_mask": torch.ones(facts.batch, 1, dtype=torch.bool)},
    "depth_pro": _square(1536),
    # Entropies of the next bytes cut a text into patches; one byte leaves nothing to be cut.
    "blt": lambda facts: {"input_ids": facts.tokens(facts.batch, 1)},
    "phi4_multimodal": _crops,
    # Compressed attention reads whole windows only.
    "deepseek_v4": lambda facts: {
        "input_ids": facts.tokens(facts.batch, 2 * max(facts.config.compress_rates.values()))
    },
    # Every codebook of a sound is a sequence of its own.
    **dict.fromkeys(
        ("musicgen_decoder", "musicgen_melody_decoder"),
        lambda facts: {"input_ids": facts.tokens(facts.batch * facts.config.num_codebooks, LENGTH)},
    ),
    "deepseek_vl_hybrid": lambda facts: {
        "high_res_pixel_values": facts.floats(
            facts.batch, 3, *[facts.config.high_res_vision_config.image_size] * 2
        )
    },
    "fuyu": lambda facts: {
        "pixel_values": facts.floats(facts.batch, FUYU_PATCHES, 3 * facts.config.patch_size**2),
    },
    # Frames come with their differences, and in pairs.
    "granite_speech5_ctc": lambda facts: {
        "input_features": facts.floats(facts.batch, 128, 4 * facts.find("num_mel_bins"))
    },
}
"""Model type -> arguments that replace those of the rules; None leaves an argument out."""

ALSO_WITHOUT: dict[str, tuple[tuple[str, ...], ...]] = {
    # Sound goes through a projection of its own when there is no image.
    "phi4_multimodal": (("image_pixel_values", "image_sizes", "image_attention_mask"),),
}
"""Model type -> sets of arguments that further calls leave out."""
