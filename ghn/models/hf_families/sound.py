"""Models of sound, with text or video too."""

from typing import Any

import torch

from ghn.models.hf_facts import LENGTH, Facts
from ghn.models.hf_families.family import Family, each, floats

SAMPLES = 19200
"""Values of a waveform that is cut into whole frames of any usual length."""

_QFORMER = {"projector_config": {"model_type": "blip_2_qformer", "encoder_hidden_size": 1024}}


def _waves(facts: Facts) -> dict[str, Any]:
    """Dots: bands before frames, and the number of samples that the frames were made of."""
    sound, frames = facts.config.audio_config, 64
    return {
        "input_features": facts.floats(1, facts.find("num_mel_bins", "num_mels", default=128), frames),
        "chunk_sample_lengths": torch.tensor([frames * sound.hop_length]),
    }


def _no_mask(facts: Facts) -> dict[str, Any]:
    """Its mask is of features rather than frames."""
    return {"input_features_mask": None}


def _windows(facts: Facts) -> dict[str, Any]:
    mels, frames = facts.find("num_mel_bins"), 4 * facts.find("n_window")
    return {"input_features": facts.floats(facts.batch, mels, frames)}


def _stacked_frames(facts: Facts) -> dict[str, Any]:
    width = facts.find("num_mel_bins") * facts.find("num_stacked_frames")
    return {"input_features": facts.floats(facts.batch, 128, width)}


def _half_the_positions(facts: Facts) -> int:
    return int(facts.config.audio_config.max_source_positions) // 2


SOUND: dict[str, Family] = {
    # Waveforms with an axis for the channel.
    **each(
        *("dac", "encodec", "mimi", "mimi_encoder", "neucodec", "pe_audio", "pe_audio_encoder"),
        *("pocket_tts_audio_tokenizer", "pocket_tts_audio_tokenizer_encoder"),
        *("vibevoice_acoustic_tokenizer", "xcodec", "xcodec2", "vibevoice_asr"),
        arguments=floats("input_values", None, 1, SAMPLES),
    ),
    **each("muse_spark", "muse_spark_audio", arguments=floats("input_values", None, SAMPLES)),
    **each(
        *("pe_audio_video", "pe_audio_video_encoder"),
        arguments=lambda facts: {
            "pixel_values_videos": facts.floats(facts.batch, 8, 3, 336, 336),
            "input_values": facts.floats(facts.batch, 1, SAMPLES),
        },
    ),
    "vibevoice": Family(
        arguments=lambda facts: {
            "input_values": facts.floats(1, 1, SAMPLES),
            "padding_mask": torch.ones(1, SAMPLES, dtype=torch.bool),
        }
    ),
    "speech-encoder-decoder": Family(arguments=lambda facts: {"input_features": None}),
    **each("granite_speech", "granite_speech_plus", arguments=_no_mask, repairs=_QFORMER),
    # Frames come with their differences, and in pairs.
    **each(
        *("granite_speech5_ctc", "granite_speech5_encoder"),
        arguments=lambda facts: {
            "input_features": facts.floats(facts.batch, 128, 4 * facts.find("num_mel_bins"))
        },
    ),
    **each("fun_asr_nano", "fun_asr_nano_encoder", arguments=_stacked_frames),
    "qwen3_asr": Family(
        arguments=_windows,
        repairs={"audio_config": {"model_type": "qwen3_asr_encoder", "output_dim": 2048}},
    ),
    "qwen3_asr_encoder": Family(arguments=_windows),
    "dots3_note": Family(arguments=_waves),
    **each("clap", "clap_audio_model", arguments=floats("input_features", None, 1, 1001, 64)),
    "clvp": Family(
        arguments=lambda facts: {
            "input_features": facts.floats(1, facts.find("feature_size", default=80), 128)
        }
    ),
    "pop2piano": Family(
        arguments=lambda facts: {
            "input_ids": None,
            "input_features": facts.floats(1, LENGTH, facts.config.d_model),
        }
    ),
    # Every codebook of a sound is a sequence of its own, or a column.
    **each(
        *("musicgen_decoder", "musicgen_melody_decoder"),
        arguments=lambda facts: {"input_ids": facts.tokens(facts.batch * facts.config.num_codebooks, LENGTH)},
    ),
    **each(
        *("musicgen", "musicgen_melody"),
        arguments=lambda facts: {
            "decoder_input_ids": facts.tokens(facts.config.decoder.num_codebooks, LENGTH),
            "input_features": facts.floats(1, 128, facts.find("num_chroma", default=12)),
        },
    ),
    "kyutai_speech_to_text": Family(
        arguments=lambda facts: {
            "input_ids": facts.integers(1, LENGTH, facts.config.num_codebooks + 1, high=1000)
        }
    ),
    "dia": Family(
        arguments=lambda facts: {
            "decoder_input_ids": facts.tokens(
                1, LENGTH, facts.find("num_channels", within=facts.config.decoder_config), vocabulary=1000
            )
        }
    ),
    **each("qwen2_audio", "musicflamingo", sound_tokens=_half_the_positions),
    # A placeholder that is missing.
    "voxtral": Family(repairs={"audio_token_id": 24}),
}
