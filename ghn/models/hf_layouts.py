"""How model types lay out pixels and waveforms, and how many places their features take in a sequence."""

from collections.abc import Callable

from ghn.models.hf_facts import Facts

PIXEL_LAYOUTS: dict[str, str] = {
    **dict.fromkeys(
        (
            "idefics",
            "idefics2",
            "idefics3",
            "smolvlm",
            "granite_docling",
            "ultravbert",
            "modernvbert",
            "colmodernvbert",
        ),
        "bnchw",
    ),
    **dict.fromkeys(("deepseek_vl", "deepseek_vl_hybrid", "janus"), "bchw"),
    **dict.fromkeys(("videomae", "vivit", "timesformer", "xclip", "tvp"), "btchw"),
    **dict.fromkeys(("kimi_k25", "kimi_k25_vision", "paddleocr_vl"), "pcyx"),
    **dict.fromkeys(("efficientloftr",), "b2chw"),
}
"""Axes of ``pixel_values`` that aren't (b, c, h, w): also n images, 2 of a pair, t frames, p patches of size (y, x)."""

ONE_CHANNEL = (
    *("dac", "encodec", "mimi", "mimi_encoder", "neucodec", "pe_audio", "pe_audio_encoder"),
    *("pocket_tts_audio_tokenizer", "pocket_tts_audio_tokenizer_encoder"),
    *("vibevoice_acoustic_tokenizer", "xcodec", "xcodec2"),
)
"""Model types that take waveforms with an axis for the channel."""
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
    "inkling2": lambda facts: 16,
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
