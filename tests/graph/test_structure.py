"""Residual additions, and the parameters that set the size of their branches."""

import torch
from torch import nn

from ghn.graph.structure import residual_adds
from ghn.graph.trace import trace
from ghn.models import load_model


def _ends(model: nn.Module, inputs=None) -> list[str]:
    return [name for add in residual_adds(trace(model, inputs)) for name in add.branch_ends]


def test_resnet_branches_end_in_a_norm():
    model = load_model("torchvision:resnet18")
    blocks = [f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)]
    assert _ends(model) == [f"{block}.bn2.weight" for block in blocks]


def test_vit_branches_end_in_a_projection():
    model = load_model("timm:test_vit")
    expected = [
        f"blocks.{block}.{end}.weight"
        for block in range(len(model.blocks))
        for end in ("attn.proj", "mlp.fc2")
    ]
    assert _ends(model) == expected


def test_gpt2_branches_end_in_a_projection():
    model = load_model("hf:gpt2", n_embd=32, n_layer=2, n_head=2, vocab_size=50, n_positions=32)
    expected = [f"transformer.h.{block}.{end}.c_proj.weight" for block in range(2) for end in ("attn", "mlp")]
    assert _ends(model) == expected


def test_layer_scale_comes_before_what_it_scales():
    model = load_model("timm:test_convnext2")
    assert _ends(model) == [f"stages.{stage}.blocks.0.gamma" for stage in range(4)]


def test_two_branches_of_equal_depth_are_no_residual():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return self.left(x) + self.right(x)

    assert _ends(Sum(), torch.ones(2, 8)) == []
