"""Model types whose arguments differ from what their names say elsewhere."""

from collections.abc import Callable
from typing import Any

import torch

from ghn.models.hf_facts import LENGTH, Facts
from ghn.models.hf_layouts import FUYU_PATCHES, ONE_CHANNEL, PHI_FRAMES, TOKENS_PER_SOUND

Arguments = Callable[[Facts], dict[str, Any]]

LINES = ("pp_ocrv5_mobile_rec", "pp_ocrv5_server_rec", "pp_ocrv6_small_rec", "pp_ocrv6_tiny_rec")
"""Model types that read a line of text in an image."""
SAMPLES = 19200
"""Values of a waveform that is cut into whole frames of any usual length."""


def _floats(name: str, *shape: int | None) -> Arguments:
    """One argument of a fixed shape, in which None stands for the batch."""
    return lambda facts: {name: facts.floats(*(facts.batch if size is None else size for size in shape))}


def _position_mask(facts: Facts) -> dict[str, Any]:
    """Kosmos marks the places of image features in a mask of its own."""
    features = facts.find("latent_query_num")
    ids = facts.tokens(facts.batch, LENGTH + features)
    mask = torch.zeros_like(ids)
    mask[:, 2 : 2 + features] = 1
    return {"input_ids": ids, "image_embeds_position_mask": mask}


def _tiles(facts: Facts) -> dict[str, Any]:
    tiles = facts.find("max_num_tiles")
    return {
        "pixel_values": facts.floats(facts.batch, 1, tiles, facts.channels(), *facts.image_size()),
        "aspect_ratio_ids": torch.ones(facts.batch, 1, dtype=torch.long),
        "aspect_ratio_mask": torch.ones(facts.batch, 1, tiles, dtype=torch.long),
        "cross_attention_mask": torch.ones(facts.batch, LENGTH, 1, tiles, dtype=torch.long),
    }


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


def _pooled_crops(facts: Facts) -> dict[str, Any]:
    """Molmo: crops as rows of patches, which of them each feature pools, and how many features there are."""
    vision, pooled = facts.find("vision_config"), torch.arange(16).reshape(4, 4)
    side, size = vision.image_size, vision.patch_size
    height, width = (side, side) if isinstance(side, int) else side
    patches = (height // size) * (width // size)
    return {
        "pixel_values": facts.floats(1, patches, facts.channels() * size**2),
        "image_token_pooling": pooled,
        "image_grids": torch.tensor([[2, 1, 2, 1]]),
        "image_num_crops": torch.tensor([1]),
    }


def _folded(facts: Facts) -> dict[str, Any]:
    """Inkling: patches with their channels last, and sounds as one integer for each frame and band."""
    vision, sound = facts.part("vision_config"), facts.part("audio_config")
    size = vision.patch_size
    values: dict[str, Any] = {
        "pixel_values": facts.floats(4, vision.temporal_patch_size, size, size, vision.num_channels),
    }
    if facts.takes("audio_input_ids"):
        values["audio_input_ids"] = facts.integers(1, LENGTH, sound.n_mel_bins, high=2)
    return values


def _waves(facts: Facts) -> dict[str, Any]:
    """Dots: bands before frames, and the number of samples that the frames were made of."""
    sound, frames = facts.config.audio_config, 64
    return {
        "input_features": facts.floats(1, facts.find("num_mel_bins", "num_mels", default=128), frames),
        "chunk_sample_lengths": torch.tensor([frames * sound.hop_length]),
    }


IMAGES: dict[str, Arguments] = {
    **dict.fromkeys(("kosmos-2", "kosmos-2.5"), _position_mask),
    **dict.fromkeys(("mllama", "mllama_vision_model"), _tiles),
    "mllama_text_model": lambda facts: {
        "cross_attention_states": facts.floats(facts.batch, LENGTH, facts.config.hidden_size)
    },
    "idefics": lambda facts: {"image_attention_mask": torch.ones(facts.batch, LENGTH, 1, dtype=torch.long)},
    "granite_docling": lambda facts: {"pixel_attention_mask": torch.ones(facts.batch, 1, dtype=torch.bool)},
    "instructblipvideo": lambda facts: {
        "pixel_values": facts.floats(1, 4, facts.channels(), *facts.image_size())
    },
    **dict.fromkeys(
        ("inkling2", "inkling2_vision"),
        lambda facts: {"pixel_values": facts.floats(16, *[2 * facts.patch_size()[0]] * 2, facts.channels())},
    ),
    **dict.fromkeys(("inkling_mm_model", "inkling_vision"), _folded),
    "phi4_multimodal": _crops,
    "molmo2": _pooled_crops,
    "deepseek_vl_hybrid": lambda facts: {
        "high_res_pixel_values": facts.floats(
            facts.batch, 3, *[facts.config.high_res_vision_config.image_size] * 2
        )
    },
    "fuyu": lambda facts: {
        "pixel_values": facts.floats(facts.batch, FUYU_PATCHES, 3 * facts.config.patch_size**2),
    },
    "neomme": lambda facts: {"pixel_values": facts.floats(FUYU_PATCHES, facts.config.patch_dim)},
    "colqwen2": _floats("pixel_values", None, 16, 3 * 2 * 14 * 14),
    "pi0": lambda facts: {
        "pixel_values": facts.floats(1, 1, facts.channels(), *facts.image_size()),
        "pixel_attention_mask": torch.ones(1, 1, dtype=torch.bool),
    },
    "seggpt": lambda facts: dict.fromkeys(
        ("pixel_values", "prompt_pixel_values", "prompt_masks"),
        facts.floats(2, 3, *[facts.image_size()[1]] * 2),  # the model stacks prompt and image
    ),
    "tvp": lambda facts: {
        "pixel_values": facts.floats(1, facts.config.num_frames, 3, *[facts.config.max_img_size] * 2)
    },
    **dict.fromkeys(LINES, _floats("pixel_values", None, 3, 48, 320)),
    "depth_pro": _floats("pixel_values", None, 3, 1536, 1536),
    **dict.fromkeys(
        ("rf_detr", "rf_detr_dinov2"), _floats("pixel_values", None, 3, 560, 560)
    ),  # whole windows
    # Where values are unknown, every pixel is a keypoint that attends to every other: few pixels.
    "lightglue": _floats("pixel_values", None, 2, 3, 32, 32),
    "superglue": _floats("pixel_values", None, 2, 1, 32, 32),
    **dict.fromkeys(("pe_video", "pe_video_encoder"), _floats("pixel_values_videos", None, 8, 3, 336, 336)),
}

SOUNDS: dict[str, Arguments] = {
    **dict.fromkeys(ONE_CHANNEL, _floats("input_values", None, 1, SAMPLES)),
    **dict.fromkeys(("muse_spark", "muse_spark_audio"), _floats("input_values", None, SAMPLES)),
    **dict.fromkeys(
        ("pe_audio_video", "pe_audio_video_encoder"),
        lambda facts: {
            "pixel_values_videos": facts.floats(facts.batch, 8, 3, 336, 336),
            "input_values": facts.floats(facts.batch, 1, SAMPLES),
        },
    ),
    "vibevoice_asr": _floats("input_values", None, 1, SAMPLES),
    "vibevoice": lambda facts: {
        "input_values": facts.floats(1, 1, SAMPLES),
        "padding_mask": torch.ones(1, SAMPLES, dtype=torch.bool),
    },
    "speech-encoder-decoder": lambda facts: {"input_features": None},
    # Its mask is of features rather than frames.
    **dict.fromkeys(("granite_speech", "granite_speech_plus"), lambda facts: {"input_features_mask": None}),
    # Frames come with their differences, and in pairs.
    **dict.fromkeys(
        ("granite_speech5_ctc", "granite_speech5_encoder"),
        lambda facts: {"input_features": facts.floats(facts.batch, 128, 4 * facts.find("num_mel_bins"))},
    ),
    # Stacked frames.
    **dict.fromkeys(
        ("fun_asr_nano", "fun_asr_nano_encoder"),
        lambda facts: {
            "input_features": facts.floats(
                facts.batch, 128, facts.find("num_mel_bins") * facts.find("num_stacked_frames")
            )
        },
    ),
    **dict.fromkeys(
        ("qwen3_asr", "qwen3_asr_encoder"),
        lambda facts: {
            "input_features": facts.floats(
                facts.batch, facts.find("num_mel_bins"), 4 * facts.find("n_window")
            )
        },
    ),
    "dots3_note": _waves,
    **dict.fromkeys(("clap", "clap_audio_model"), _floats("input_features", None, 1, 1001, 64)),
    "clvp": lambda facts: {"input_features": facts.floats(1, facts.find("feature_size", default=80), 128)},
    "pop2piano": lambda facts: {
        "input_ids": None,
        "input_features": facts.floats(1, LENGTH, facts.config.d_model),
    },
}

TEXTS: dict[str, Arguments] = {
    # Entropies of the next bytes cut a text into patches; one byte leaves nothing to be cut.
    "blt": lambda facts: {"input_ids": facts.tokens(facts.batch, 1)},
    # Compressed attention reads whole windows only.
    "deepseek_v4": lambda facts: {
        "input_ids": facts.tokens(facts.batch, 2 * max(facts.config.compress_rates.values()))
    },
    "splinter": lambda facts: {
        "input_ids": facts.tokens(1, LENGTH).index_fill(1, torch.tensor([3]), facts.config.question_token_id)
    },
    # Every codebook of a sound is a sequence of its own, or a column.
    **dict.fromkeys(
        ("musicgen_decoder", "musicgen_melody_decoder"),
        lambda facts: {"input_ids": facts.tokens(facts.batch * facts.config.num_codebooks, LENGTH)},
    ),
    **dict.fromkeys(
        ("musicgen", "musicgen_melody"),
        lambda facts: {
            "decoder_input_ids": facts.tokens(facts.config.decoder.num_codebooks, LENGTH),
            "input_features": facts.floats(1, 128, facts.find("num_chroma", default=12)),
        },
    ),
    "kyutai_speech_to_text": lambda facts: {
        "input_ids": facts.integers(1, LENGTH, facts.config.num_codebooks + 1, high=1000)
    },
    "dia": lambda facts: {
        "decoder_input_ids": facts.tokens(
            1, LENGTH, facts.find("num_channels", within=facts.config.decoder_config), vocabulary=1000
        )
    },
}

EXCEPTIONS: dict[str, Arguments] = IMAGES | SOUNDS | TEXTS
"""Model type -> arguments that replace those of the rules; None leaves an argument out."""
