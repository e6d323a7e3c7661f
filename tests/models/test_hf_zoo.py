"""Hugging Face configurations: which are changed so that a model can run, and how deep ones are made shallow."""

import pytest
import transformers
from packaging.version import Version

from ghn.models import load_model
from ghn.models.hf_families import FAMILIES
from ghn.models.hf_zoo import heads, is_repaired, shallow


@pytest.mark.parametrize(
    ("head", "repaired"),
    [
        ("gpt2:GPT2LMHeadModel", False),
        ("xmod:XmodForMaskedLM", True),
        ("reformer:ReformerModelWithLMHead", True),
        ("reformer:ReformerForMaskedLM", False),  # the repair of its sister would break it
        ("gemma3:Gemma3ForConditionalGeneration", True),
        ("gemma3:Gemma3ForCausalLM", False),  # the vision part is repaired, and this is the text part
    ],
)
def test_a_changed_configuration_is_told_from_the_default(head, repaired):
    assert is_repaired(head) is repaired


@pytest.mark.skipif(Version(transformers.__version__) < Version("5.23"), reason="some are of newer types")
def test_repairs_are_of_model_types_or_heads_that_exist():
    known = {*heads(), *(head.partition(":")[0] for head in heads())}
    assert {kind for kind, family in FAMILIES.items() if family.repairs} <= known


def test_shallow_models_keep_two_layers_of_every_part():
    overrides = shallow("llava:LlavaForConditionalGeneration")
    model = load_model("hf:llava:LlavaForConditionalGeneration", device="meta", **overrides)
    assert model.config.text_config.num_hidden_layers == 2
    assert model.config.vision_config.num_hidden_layers == 2
    assert model.config.vision_config.hidden_size == 1024  # everything else stays
