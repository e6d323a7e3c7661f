"""Default configurations of transformers that make no model that can run, and what helps."""

from typing import Any

from transformers import PreTrainedConfig

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
_QFORMER = {"projector_config": {"model_type": "blip_2_qformer", "encoder_hidden_size": 1024}}
_MINICPM = {"image_token_id": 101, "video_token_id": 102}

REPAIRS: dict[str, dict[str, Any]] = {
    # images whose patches can't be pooled, shuffled or projected as the model does next
    "gemma3": {"vision_config": _SIGLIP},
    "shieldgemma2": {"vision_config": _SIGLIP},
    "t5gemma2": {"encoder": {"model_type": "t5gemma2_encoder", "vision_config": _SIGLIP}},
    "t5gemma2_encoder": {"vision_config": _SIGLIP},
    "aria": {"vision_config": {"model_type": "idefics3_vision", "image_size": 980, "patch_size": 14}},
    "idefics3": {"vision_config": {"model_type": "idefics3_vision", "image_size": 256}},
    "smolvlm": {"vision_config": {"model_type": "smolvlm_vision", "image_size": 256}},
    "modernvbert": _SIGLIP_16,
    "ultravbert": _SIGLIP_16,
    "colmodernvbert": {"vlm_config": {"model_type": "modernvbert", **_SIGLIP_16}},
    "llama4": {"vision_config": {"intermediate_size": 3072, "vision_output_dim": 4096}},
    "janus": {"vision_config": {"model_type": "janus_vision_model", "projection_dim": 4096}},
    "qwen2_vl": {"vision_config": {"hidden_size": 8192}},
    # towers of another width than the text
    "molmo2": {"adapter_config": {"text_hidden_size": 4096}},
    "ovis2": {"hidden_size": 4096},
    "qwen3_asr": {"audio_config": {"model_type": "qwen3_asr_encoder", "output_dim": 2048}},
    "granite_speech": _QFORMER,
    "granite_speech_plus": _QFORMER,
    # placeholders that are missing, or no entry of the vocabulary
    "blip-2": {"image_token_index": 50265},
    "instructblip": {"image_token_index": 50265},
    "instructblipvideo": {"video_token_index": 32000},
    "minicpm_ocr": _MINICPM,
    "minicpmv4_6": _MINICPM,
    "minicpmv4_7": _MINICPM,
    "nemotron_h_omni": {"image_token_id": 18, "video_token_id": 19, "audio_token_id": 27},
    "voxtral": {"audio_token_id": 24},
    # rotary embeddings of another width than the heads
    **dict.fromkeys(("glm4v_text", "glm_image_text"), _GLM_ROPE),
    "glm4v_moe_text": {"head_dim": 128, **_GLM_ROPE},
    **{name: {"text_config": _GLM_ROPE} for name in ("glm4v", "glm46v", "glmga")},
    "glm4v_moe": {"text_config": {"head_dim": 128, **_GLM_ROPE}},
    # numbers that are missing, or don't go together
    "deepseek_v2": {"num_experts_per_tok": 6, "topk_group": 3, "n_group": 8},
    "granitemoehybrid": {"layer_types": [*["mamba"] * 3, "attention"] * 8},
    "step3p7": {"text_config": {"sliding_window": 512}},
    **{name: {"prediction_length": 8} for name in ("autoformer", "informer", "time_series_transformer")},
    "xmod": {"default_language": "en_XX"},
    "reformer:ReformerModelWithLMHead": {"is_decoder": True},
}
"""Model types, or classes of them, whose default configuration constructs no model that can run, and what helps."""


def fit_parts(config: PreTrainedConfig) -> PreTrainedConfig:
    """Let the vision part end where the text part begins: their defaults were chosen apart from each other."""
    vision, text = getattr(config, "vision_config", None), getattr(config, "text_config", None)
    width = getattr(text, "hidden_size", None)
    if getattr(vision, "out_hidden_size", None) and width:
        vision.out_hidden_size = width  # type: ignore[union-attr]
    return config
