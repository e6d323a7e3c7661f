"""Models of images or videos with text, some of sound too."""

from typing import Any

import torch

from ghn.models.hf_facts import LENGTH, Facts
from ghn.models.hf_families.family import Family, each, floats

FUYU_PATCHES = 4
"""Patches of an image for Fuyu, which takes them as flat rows of any number."""
PHI_FRAMES = 128
"""Columns of a spectrogram for Phi-4."""

# 64 x 64 patches, which pooling turns into mm_tokens_per_image = 256; the default 14 x 14 are too few.
_SIGLIP = {"model_type": "siglip_vision_model", "image_size": 896, "patch_size": 14}
# 16 x 16 patches, as pixel shuffling takes 4 x 4 of them together.
_SIGLIP_16 = {"vision_config": {"model_type": "siglip_vision_model", "image_size": 256}}
_GLM_ROPE = {
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [8, 12, 12],
        "partial_rotary_factor": 0.5,
    }
}


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
        "audio_embed_sizes": torch.tensor([_phi_sounds(facts)]),
    }


def _crop_features(facts: Facts) -> int:
    """Phi-4: a thumbnail and one crop, 2 x 2 patches pooled, each row with its end, and a separator."""
    side = facts.config.vision_config.crop_size // facts.config.vision_config.patch_size // 2
    return 2 * int(side) * (int(side) + 1) + 1


def _phi_sounds(facts: Facts) -> int:
    return PHI_FRAMES // int(facts.config.audio_config.time_reduction)


def _pooled_crops(facts: Facts) -> dict[str, Any]:
    """Molmo: crops as rows of patches, which of them each feature pools, and how many features there are."""
    vision, pools = facts.find("vision_config"), torch.arange(16).reshape(4, 4)
    side, size = vision.image_size, vision.patch_size
    height, width = (side, side) if isinstance(side, int) else side
    patches = (height // size) * (width // size)
    return {
        "pixel_values": facts.floats(1, patches, facts.channels() * size**2),
        "image_token_pooling": pools,
        "image_grids": torch.tensor([[2, 1, 2, 1]]),
        "image_num_crops": torch.tensor([1]),
    }


def _patches_and_codes(facts: Facts) -> dict[str, Any]:
    """Inkling: patches with their channels last, and sounds as one integer for each frame and band."""
    vision, sound = facts.part("vision_config"), facts.part("audio_config")
    size = vision.patch_size
    values: dict[str, Any] = {
        "pixel_values": facts.floats(4, vision.temporal_patch_size, size, size, vision.num_channels),
    }
    if facts.takes("audio_input_ids"):
        values["audio_input_ids"] = facts.integers(1, LENGTH, sound.n_mel_bins, high=2)
    return values


def _large_patches(facts: Facts) -> dict[str, Any]:
    return {"pixel_values": facts.floats(16, *[2 * facts.patch_size()[0]] * 2, facts.channels())}


def _high_resolution(facts: Facts) -> dict[str, Any]:
    size = facts.config.high_res_vision_config.image_size
    return {"high_res_pixel_values": facts.floats(facts.batch, 3, size, size)}


def _all_patches(facts: Facts) -> int:
    return facts.patches()


def _shuffle_count(facts: Facts) -> int:
    return int(facts.patches() // facts.find("scale_factor", "pixel_shuffle_factor") ** 2)


def _queries(facts: Facts) -> int:
    return int(facts.config.num_query_tokens)


_MINICPM = {"image_token_id": 101, "video_token_id": 102}

MULTIMODAL: dict[str, Family] = {
    "idefics": Family(
        layout="bnchw",
        arguments=lambda facts: {
            "image_attention_mask": torch.ones(facts.batch, LENGTH, 1, dtype=torch.long)
        },
    ),
    "idefics2": Family(
        layout="bnchw",
        image_tokens=lambda facts: int(facts.config.perceiver_config.resampler_n_latents),
    ),
    "idefics3": Family(
        layout="bnchw",
        image_tokens=_shuffle_count,
        repairs={"vision_config": {"model_type": "idefics3_vision", "image_size": 256}},
    ),
    "smolvlm": Family(
        layout="bnchw",
        image_tokens=_shuffle_count,
        repairs={"vision_config": {"model_type": "smolvlm_vision", "image_size": 256}},
    ),
    **each("modernvbert", "ultravbert", layout="bnchw", image_tokens=_shuffle_count, repairs=_SIGLIP_16),
    "colmodernvbert": Family(
        layout="bnchw", repairs={"vlm_config": {"model_type": "modernvbert", **_SIGLIP_16}}
    ),
    # Documents of small print take a path of their own.
    "granite_docling": Family(
        layout="bnchw",
        arguments=lambda facts: {"pixel_attention_mask": torch.ones(facts.batch, 1, dtype=torch.bool)},
        further=(lambda facts: {"tile_fine_mask": torch.ones(1, dtype=torch.bool)},),
    ),
    "granite_docling_vision": Family(further=(lambda facts: {"fine": True},)),
    "deepseek_vl": Family(layout="bchw", image_tokens=_all_patches),
    "deepseek_vl_hybrid": Family(layout="bchw", image_tokens=_all_patches, arguments=_high_resolution),
    "janus": Family(
        layout="bchw",
        image_tokens=_all_patches,
        repairs={"vision_config": {"model_type": "janus_vision_model", "projection_dim": 4096}},
    ),
    **each("kimi_k25", "kimi_k25_vision", "paddleocr_vl", layout="pcyx"),
    **each("kosmos-2", "kosmos-2.5", arguments=_position_mask),
    **each("mllama", "mllama_vision_model", arguments=_tiles),
    "mllama_text_model": Family(
        arguments=lambda facts: {
            "cross_attention_states": facts.floats(facts.batch, LENGTH, facts.config.hidden_size)
        }
    ),
    "fuyu": Family(
        arguments=lambda facts: {
            "pixel_values": facts.floats(facts.batch, FUYU_PATCHES, 3 * facts.config.patch_size**2),
        },
        image_tokens=lambda facts: FUYU_PATCHES,
    ),
    "neomme": Family(
        arguments=lambda facts: {"pixel_values": facts.floats(FUYU_PATCHES, facts.config.patch_dim)}
    ),
    "colqwen2": Family(arguments=floats("pixel_values", None, 16, 3 * 2 * 14 * 14)),
    "inkling2": Family(arguments=_large_patches, image_tokens=lambda facts: 16),
    "inkling2_vision": Family(arguments=_large_patches),
    **each("inkling_mm_model", "inkling_vision", arguments=_patches_and_codes),
    # Sound goes through a projection of its own when there is no image.
    "phi4_multimodal": Family(
        arguments=_crops,
        further=(lambda facts: dict.fromkeys(("image_pixel_values", "image_sizes", "image_attention_mask")),),
        image_tokens=_crop_features,
        sound_tokens=_phi_sounds,
    ),
    "aria": Family(
        image_tokens=lambda facts: int(max(facts.config.projector_patch_to_query_dict.values())),
        repairs={"vision_config": {"model_type": "idefics3_vision", "image_size": 980, "patch_size": 14}},
    ),
    # Placeholders are no entry of the vocabulary.
    **each("blip-2", "instructblip", image_tokens=_queries, repairs={"image_token_index": 50265}),
    "instructblipvideo": Family(
        arguments=lambda facts: {"pixel_values": facts.floats(1, 4, facts.channels(), *facts.image_size())},
        image_tokens=lambda facts: 4 * _queries(facts),
        repairs={"video_token_index": 32000},
    ),
    **each("minicpm_ocr", "minicpmv4_6", "minicpmv4_7", repairs=_MINICPM),
    "nemotron_h_omni": Family(repairs={"image_token_id": 18, "video_token_id": 19, "audio_token_id": 27}),
    # Towers of another width than the text.
    "molmo2": Family(arguments=_pooled_crops, repairs={"adapter_config": {"text_hidden_size": 4096}}),
    "ovis2": Family(repairs={"hidden_size": 4096}),
    # Images whose patches can't be pooled, shuffled or projected as the model does next.
    **each("gemma3", "shieldgemma2", "t5gemma2_encoder", repairs={"vision_config": _SIGLIP}),
    "t5gemma2": Family(repairs={"encoder": {"model_type": "t5gemma2_encoder", "vision_config": _SIGLIP}}),
    "gemma3n": Family(sound_tokens=lambda facts: int(facts.config.audio_soft_tokens_per_image)),
    "llama4": Family(repairs={"vision_config": {"intermediate_size": 3072, "vision_output_dim": 4096}}),
    "qwen2_vl": Family(repairs={"vision_config": {"hidden_size": 8192}}),
    # Rotary embeddings of another width than the heads.
    **each("glm4v_text", "glm_image_text", repairs=_GLM_ROPE),
    "glm4v_moe_text": Family(repairs={"head_dim": 128, **_GLM_ROPE}),
    **each("glm4v", "glm46v", "glmga", repairs={"text_config": _GLM_ROPE}),
    "glm4v_moe": Family(repairs={"text_config": {"head_dim": 128, **_GLM_ROPE}}),
    "step3p7": Family(repairs={"text_config": {"sliding_window": 512}}),
    "pi0": Family(
        arguments=lambda facts: {
            "pixel_values": facts.floats(1, 1, facts.channels(), *facts.image_size()),
            "pixel_attention_mask": torch.ones(1, 1, dtype=torch.bool),
        }
    ),
    "xclip": Family(layout="btchw"),
    "tvp": Family(
        layout="btchw",
        arguments=lambda facts: {
            "pixel_values": facts.floats(1, facts.config.num_frames, 3, *[facts.config.max_img_size] * 2)
        },
    ),
}
