"""Example inputs: what the tracer needs to reach every parameter of a model."""

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from transformers import CONFIG_MAPPING

from ghn.errors import ModelError
from ghn.models import example_calls, example_inputs, list_models, load_model
from ghn.tracing.trace import trace

SAMPLE = {
    "timm:tresnet_m": {},
    "timm:vit_tiny_patch16_224": {"in_chans": 1},
    "timm:swinv2_tiny_window8_256": {},
    "timm:mixer_s16_224": {"img_size": 32},  # its stem alone says the size
    "torchvision:inception_v3": {},
    "torchvision:r3d_18": {},
    "torchvision:lraspp_mobilenet_v3_large": {},
    "torchvision:ssdlite320_mobilenet_v3_large": {},
    "hf:gpt2": {"n_layer": 2},
    "hf:t5": {"num_layers": 2},
    "hf:bart:BartForCausalLM": {"decoder_layers": 2},
    "hf:roc_bert": {"num_hidden_layers": 2},
    "hf:wav2vec2:Wav2Vec2ForCTC": {"num_hidden_layers": 2},
    "hf:whisper:WhisperForConditionalGeneration": {"encoder_layers": 2, "decoder_layers": 2},
    "hf:llava:LlavaForConditionalGeneration": {
        "text_config": {"model_type": "llama", "num_hidden_layers": 2}
    },
    "hf:mixtral": {"num_hidden_layers": 2},
    "hf:longformer:LongformerForMaskedLM": {"num_hidden_layers": 2},
    "hf:luke:LukeForMaskedLM": {"num_hidden_layers": 2},
    "hf:dinov2:Dinov2ForImageClassification": {"num_hidden_layers": 2},
    "hf:mllama:MllamaForCausalLM": {"text_config": {"num_hidden_layers": 4, "cross_attention_layers": [1]}},
    "hf:wav2vec2:Wav2Vec2ForXVector": {"num_hidden_layers": 2},
    "hf:deepseek_v2:DeepseekV2ForCausalLM": {"num_hidden_layers": 2},
    "hf:sam:SamModel": {"vision_config": {"num_hidden_layers": 2, "global_attn_indexes": [1]}},
    "hf:informer:InformerModel": {},
    "hf:patchtst:PatchTSTModel": {},
    "hf:tapas:TapasModel": {"num_hidden_layers": 1},
    "hf:visual_bert:VisualBertModel": {"num_hidden_layers": 1},
    "hf:xlnet:XLNetLMHeadModel": {"n_layer": 2},
    # Sound becomes a number of vectors that its mask decides.
    "hf:moss_transcribe_diarize:MossTranscribeDiarizeForConditionalGeneration": {
        "text_config": {"model_type": "qwen3", "num_hidden_layers": 2}
    },
}


@pytest.mark.parametrize("spec", SAMPLE)
def test_every_parameter_is_reached(spec):
    zoo, kind = spec.split(":")[:2]
    if zoo == "hf" and kind not in CONFIG_MAPPING:
        pytest.skip("newer than the transformers installed")
    graph = trace(load_model(spec, device="meta", **SAMPLE[spec]))
    assert [spec.name for spec in graph.params if spec.node is None] == []


def test_further_calls_reach_a_branch_that_one_call_leaves_out():
    depth = {"num_hidden_layers": 1}
    parts = {"vision_config": depth, "audio_config": {"num_blocks": 1}, **depth}
    model = load_model("hf:phi4_multimodal:Phi4MultimodalForCausalLM", device="meta", **parts)
    first, second = example_calls(model)
    assert "image_pixel_values" in first[1] and "image_pixel_values" not in second[1]
    graph = trace(model)
    assert graph.coverage() == 1.0
    assert any("on other inputs" in note for note in graph.notes)


def test_inputs_are_the_same_every_time_and_leave_global_randomness_alone():
    model = load_model("hf:gpt2", device="meta", n_layer=1)
    state = torch.get_rng_state()
    first, second = example_inputs(model), example_inputs(model)
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(tree_leaves(first), tree_leaves(second), strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("spec", ["timm:test_vit", "torchvision:vit_b_16", "hf:vit"])
def test_inputs_have_the_precision_of_the_model(spec):
    model = load_model(spec, device="meta").bfloat16()
    args, kwargs = example_inputs(model)
    floats = [one for one in tree_leaves((args, kwargs)) if one.is_floating_point()]
    assert floats and all(one.dtype == torch.bfloat16 for one in floats)


def test_unknown_model_asks_for_inputs():
    with pytest.raises(ModelError, match="pass inputs="):
        example_inputs(nn.Linear(2, 2))


@pytest.mark.zoo
@pytest.mark.parametrize("zoo", ["timm", "torchvision"])
def test_whole_zoo(zoo):
    incomplete = [
        spec for spec in list_models(zoo) if trace(load_model(spec, device="meta")).coverage() < 1.0
    ]
    assert incomplete == []
