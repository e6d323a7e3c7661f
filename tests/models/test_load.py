"""Architectures by name: every zoo builds, and every mistake is one line that helps."""

import json

import pytest
import torch
from torch import nn

from ghn.errors import ModelError
from ghn.models import example_inputs, list_models, load_model, zoo_of

TINY_GPT2 = {"n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 50}


@pytest.mark.parametrize(
    ("spec", "kwargs", "zoo"),
    [
        ("timm:resnet18", {"num_classes": 7}, "timm"),
        ("torchvision:squeezenet1_1", {"num_classes": 7}, "torchvision"),
        ("hf:mobilevit", {"num_classes": 7}, "hf"),
    ],
)
def test_every_zoo_takes_num_classes(spec, kwargs, zoo):
    model = load_model(spec, **kwargs).eval()
    args, inputs = example_inputs(model)
    with torch.no_grad():
        output = model(*args, **inputs)
    assert zoo_of(model) == zoo
    assert getattr(output, "logits", output).shape == (2, 7)


@pytest.mark.parametrize(
    ("spec", "kwargs", "message"),
    [
        ("resnet18", {}, "names no zoo.*'timm:convnext_tiny'"),
        ("tim:resnet18", {}, "Did you mean 'timm'"),
        ("timm:", {}, "no name after"),
        ("timm:resnet19", {}, "Did you mean 'resnet18'"),
        ("timm:resnet18", {"num_clases": 3}, "no argument 'num_clases'. Did you mean 'num_classes'"),
        ("timm:resnet18", {"pretrained": True}, "own random init only"),
        ("torchvision:resnet19", {}, "Did you mean 'resnet18'"),
        ("torchvision:resnet18", {"num_clases": 3}, "Did you mean 'num_classes'"),
        ("torchvision:fcn_resnet50", {"num_clases": 3}, "Did you mean 'num_classes'"),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, "own random init only"),
        ("hf:gpt2", {"n_layers": 3}, "has no 'n_layers'. Did you mean 'n_layer'"),
        ("hf:gpt2", {"n_head": 7}, "n_head|num_heads"),
        ("hf:gpt2", {"task": "image-classification"}, "has no head for 'image-classification'"),
        ("hf:gpt2:AutoModelForCausaLM", {}, "Did you mean 'AutoModelForCausalLM'"),
        ("hf:gpt2:AutoModelForImageClassification", {}, "it has AutoModel, AutoModelForCausalLM"),
        ("python:torch.nn:Linea", {}, "Did you mean 'Linear'"),
        ("python:torch.nn:Linear", {"in_feature": 3}, "Did you mean 'in_features'"),
        ("python:os:getcwd", {}, "returned str; expected a torch.nn.Module"),
        ("python:nowhere_at_all:make", {}, "Can't import 'nowhere_at_all'"),
        ("python:missing.py:make", {}, "no file 'missing.py'"),
        ("python:missing", {}, "names no factory"),
        ("timm:resnet18", {"device": "cdua"}, "names no device"),
    ],
)
def test_mistakes_become_one_line(spec, kwargs, message):
    with pytest.raises(ModelError, match=message) as caught:
        load_model(spec, **kwargs)
    assert "\n" not in str(caught.value)


def test_factory_in_a_file_finds_its_neighbours(tmp_path):
    (tmp_path / "neighbour_sizes.py").write_text("WIDTH = 5\n")
    file = tmp_path / "my_factory.py"
    file.write_text(
        "from torch import nn\nfrom neighbour_sizes import WIDTH\n\n"
        "def make(out=2):\n    return nn.Linear(WIDTH, out)\n"
    )
    model = load_model(f"python:{file}:make", out=3)
    assert model.weight.shape == (3, 5)
    assert zoo_of(model) == "python"


def test_stored_configuration_with_overrides(tmp_path):
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **TINY_GPT2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for source in (tmp_path, tmp_path / "config.json"):
        model = load_model(f"hf:{source}", n_layer=2)
        assert type(model).__name__ == "GPT2LMHeadModel"
        assert (model.config.n_layer, model.config.n_embd) == (2, 16)


@pytest.mark.parametrize(
    ("spec", "task", "expected"),
    [
        ("hf:bert", None, "BertForMaskedLM"),
        ("hf:t5", None, "T5ForConditionalGeneration"),
        ("hf:vit", None, "ViTForImageClassification"),
        ("hf:gpt2", "language-modeling", "GPT2LMHeadModel"),
        ("hf:gpt2:GPT2ForSequenceClassification", None, "GPT2ForSequenceClassification"),
    ],
)
def test_head_follows_type_task_or_name(spec, task, expected):
    model = load_model(spec, device="meta", **({"task": task} if task else {}))
    assert type(model).__name__ == expected


def test_encoder_as_language_model_looks_back_only():
    model = load_model("hf:bert", device="meta", task="language-modeling", num_hidden_layers=1)
    assert model.config.is_decoder


@pytest.mark.parametrize(
    "spec",
    ["torchvision:regnet_y_400mf", "timm:swinv2_tiny_window8_256", "timm:vitamin_small_224", "hf:gpt2"],
)
def test_meta_construction_has_the_same_parameters(spec):
    real, meta = load_model(spec), load_model(spec, device="meta")
    assert {name: value.shape for name, value in meta.named_parameters(remove_duplicate=False)} == {
        name: value.shape for name, value in real.named_parameters(remove_duplicate=False)
    }
    assert len(list(meta.parameters())) == len(list(real.parameters()))  # ties survive
    assert all(parameter.is_meta for parameter in meta.parameters())
    for name, value in meta.named_buffers():
        torch.testing.assert_close(value, real.get_buffer(name), msg=name)


def test_meta_construction_leaves_no_hook_behind():
    load_model("timm:resnet18", device="meta")
    assert not nn.Linear(2, 2).weight.is_meta


def test_list_models():
    assert len(list_models("timm")) > 1000
    assert "timm:convnext_tiny" in list_models("timm", "convnext_*")
    assert "hf:gpt2" in list_models("hf", "gpt2")
    with pytest.raises(ModelError, match="Did you mean 'timm'"):
        list_models("tim")


def test_special_tokens_outside_a_smaller_vocabulary_are_none():
    config = load_model("hf:gpt2", **TINY_GPT2).config
    assert config.eos_token_id is None and config.bos_token_id is None
    assert load_model("hf:gpt2", **TINY_GPT2, eos_token_id=7).config.eos_token_id == 7
    assert load_model("hf:gpt2", **{**TINY_GPT2, "vocab_size": 50257}).config.eos_token_id == 50256
