"""Rules of size, against those of the model zoos written out by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ghn.decoder.heads import CHARACTERS
from ghn.decoder.scale import (
    HEADS_OUTPUT,
    KERNEL_RATE,
    LAST_NORM,
    LEAST_OPEN,
    Network,
    Place,
    fans,
    places,
    scale_of,
)
from ghn.errors import ConfigError
from ghn.graph.graph import ParamSpec
from ghn.graph.trace import trace
from ghn.models import load_model


def spec(role: str, shape: tuple[int, ...], axes: str = "", groups: int = 1) -> ParamSpec:
    return ParamSpec(names=("p",), shape=shape, role=role, axes=tuple(axes.split()), groups=groups, node=0)


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(6, 10),
        nn.Conv2d(6, 10, 3),
        nn.Conv2d(6, 12, 3, groups=3),
        nn.Conv1d(6, 6, 5, groups=6),
    ],
    ids=repr,
)
def test_fans_are_those_of_torch_for_one_group(module):
    rank = module.weight.dim() - 2
    inputs = torch.ones(2, 6, *(8,) * rank) if rank else torch.ones(2, 6)
    weight = next(spec for spec in trace(module, inputs).params if spec.name == "weight")
    groups = getattr(module, "groups", 1)
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
    assert fans(weight) == (fan_in, fan_out / groups)


def test_transposed_axes_swap_the_fans():
    assert fans(spec("linear", (4, 6), "in out")) == (4, 6)
    assert fans(spec("conv_transpose", (4, 6, 3, 3), "in out spatial spatial", 2)) == (18, 54)


@pytest.mark.parametrize(("fan", "reads"), [("fan_in", 4), ("fan_out", 6), ("zoo", 4)])
def test_matrices_follow_their_fan(fan, reads):
    rule = scale_of(spec("linear", (6, 4), "out in"), Place(network=Network(attention=True)), fan)
    assert rule.spread == pytest.approx(math.sqrt(1 / 3 / reads))
    assert rule.centre == 0 and rule.random


def test_convolutions_before_batch_statistics_follow_kaiming():
    place = Place(readers=frozenset({"batch_norm"}))
    rule = scale_of(spec("conv", (64, 32, 3, 3), "out in spatial spatial"), place, "zoo")
    assert rule.spread == pytest.approx(math.sqrt(2 / (64 * 9)))


@pytest.mark.parametrize(
    ("shape", "groups"),
    [((16, 96, 1, 1), 1), ((96, 16, 1, 1), 1), ((48, 8, 3, 3), 6), ((200, 1, 3, 3), 200)],
)
def test_narrow_kernels_before_batch_statistics_are_as_large_as_a_step(shape, groups):
    """Adam moves every number by the learning rate, so at most by a matrix of rank one of that size."""
    kernel = spec("conv", shape, "out in spatial spatial", groups)
    fan_in, fan_out = (int(fan) for fan in fans(kernel))
    place = Place(readers=frozenset({"batch_norm"}))
    spread = scale_of(kernel, place, "zoo").spread
    assert spread < math.sqrt(2 / fan_out)
    step = torch.full((fan_out, fan_in), KERNEL_RATE)
    random = spread * torch.randn(fan_out, fan_in, generator=torch.Generator().manual_seed(0))
    largest = [torch.linalg.matrix_norm(matrix, 2).item() for matrix in (step, random)]
    assert largest[0] == pytest.approx(largest[1], rel=0.2)
    # Where something else sees how large it is, the rule of He et al. keeps activations as large as they are.
    for other in (replace(place, readers=place.readers | {"add"}), replace(place, stem=True)):
        assert scale_of(kernel, other, "zoo").spread == pytest.approx(math.sqrt(2 / fan_out))


def test_positions_match_patches_and_stay_below_tokens():
    """Patches have about unit variance; tokens of 32 channels spread by ``1 / sqrt(3 * 32)``."""
    image = trace(load_model("timm:test_vit", device="meta"))
    text = trace(load_model("hf:gpt2", n_embd=32, n_layer=1, n_head=2, vocab_size=50, n_positions=32))
    for graph, expected in ((image, 0.5), (text, 96**-0.5)):
        table = next(spec for spec in graph.params if spec.role == "position")
        rule = scale_of(table, places(graph)[table.name], "zoo")
        assert rule.random and rule.spread == pytest.approx(expected)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("timm:test_vit", set()),  # its positions are such a constant
        ("timm:mixer_s32_224", {"stem.proj.bias"}),
        ("timm:test_convnext", {"stem.0.bias"}),
        ("timm:poolformer_s12", set()),  # normalized over places together, which keeps how bright each is
        ("torchvision:vgg11_bn", set()),
    ],
)
def test_stems_before_layer_normalizations_have_a_random_bias(model, expected):
    """A normalization over channels forgets the length of what a patch becomes, unless a constant is added."""
    graph = trace(load_model(model, device="meta"))
    surroundings = places(graph)
    rules = {
        entry.name: scale_of(entry, surroundings[entry.name], "zoo")
        for entry in graph.params
        if entry.role == "bias"
    }
    assert {name for name, rule in rules.items() if rule.random} == expected
    assert all(rules[name].spread == 0.5 for name in expected)


@pytest.mark.parametrize(
    ("model", "expected"),
    [("timm:test_vit", True), ("timm:coat_lite_tiny", True), ("timm:mixer_s32_224", False)],
)
def test_attention_counts_in_any_form(model, expected):
    """CoaT multiplies a softmax of its keys with its values, and that with its queries."""
    assert all(
        place.network.attention is expected
        for place in places(trace(load_model(model, device="meta"))).values()
    )


@pytest.mark.parametrize(
    ("model", "kwargs", "name"),
    [
        ("hf:mamba", {"hidden_size": 32}, "backbone.layers.0.mixer.out_proj.weight"),
        ("hf:rwkv", {"hidden_size": 32}, "rwkv.blocks.0.attention.output.weight"),
    ],
)
def test_language_models_without_attention_damp_their_branches(model, kwargs, name):
    """As transformers do; mixers of patches don't."""
    graph = trace(load_model(model, device="meta", num_hidden_layers=2, vocab_size=50, **kwargs))
    weight = next(entry for entry in graph.params if entry.name == name)
    place = places(graph)[name]
    assert not place.network.attention and place.branches >= 2
    rule = scale_of(weight, place, "zoo")
    assert rule.spread == pytest.approx(math.sqrt(1 / 3 / weight.shape[1] / place.branches))


def test_tied_tables_make_up_for_a_constant_factor():
    """T5 multiplies by one over the root of the width before it looks words up in the table of its tokens."""
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2, "vocab_size": 50}
    graph = trace(load_model("hf:t5", **sizes))
    surroundings = places(graph)
    rules = {entry.name: scale_of(entry, surroundings[entry.name], "zoo") for entry in graph.params}
    assert surroundings["shared.weight"].factor == pytest.approx(1 / 8)
    assert rules["shared.weight"].spread == pytest.approx(8 * math.sqrt(1 / 3 / 64))
    assert rules["decoder.final_layer_norm.weight"].centre == pytest.approx(LAST_NORM)
    assert rules["encoder.final_layer_norm.weight"].centre == 1.0


class Recurrent(nn.Module):
    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every
        self.table, self.layers, self.head = nn.Embedding(50, 16), nn.LSTM(16, 16), nn.Linear(16, 50)

    def forward(self, tokens):
        return self.head(self.layers(self.table(tokens * self.every))[0])


@pytest.mark.parametrize("every", [1, 2])
def test_recurrent_networks_read_tokens_of_unit_variance(every):
    graph = trace(Recurrent(every), torch.zeros(4, 2, dtype=torch.long))
    table = next(entry for entry in graph.params if entry.name == "table.weight")
    assert scale_of(table, places(graph)["table.weight"], "zoo").spread == 1.0


def test_plain_networks_start_like_torch_and_mixers_like_glorot():
    rows = spec("linear", (64, 16), "out in")
    plain, mixer = (
        scale_of(rows, Place(network=Network(norms=norms)), "zoo")
        for norms in (frozenset(), frozenset({"layer_norm"}))
    )
    assert plain.spread == pytest.approx(math.sqrt(1 / 3 / 16))
    assert mixer.spread == pytest.approx(math.sqrt(2 / 80))


def test_layer_scales_of_branches_without_maps_start_at_zero():
    scale = spec("layer_scale", (8,), "channel")
    mapped, bare = (scale_of(scale, Place(branches=4, bare=bare), "zoo") for bare in (False, True))
    assert mapped.centre == pytest.approx(0.5)
    assert bare.centre == 0 and not bare.random


def test_classifiers_of_patches_make_logits_of_unit_variance():
    rows = spec("linear", (10, 64), "out in")
    networks = (Network(norms=frozenset({"layer_norm"}), patches=cut) for cut in (False, True))
    plain, patches = (
        scale_of(rows, Place(network=network, readers=frozenset({"output"})), "zoo") for network in networks
    )
    assert patches.spread == pytest.approx(1 / 8)
    assert plain.spread == pytest.approx(math.sqrt(1 / 3) / 8)


def test_wide_classifiers_of_convolutional_networks_start_smaller():
    place = Place(network=Network(norms=frozenset({"batch_norm"})), readers=frozenset({"output"}))
    narrow, wide = (scale_of(spec("linear", (10, width), "out in"), place, "zoo") for width in (128, 512))
    assert narrow.spread == pytest.approx(math.sqrt(1 / 3 / 128))
    assert wide.spread == pytest.approx(narrow.spread / 4)


@pytest.mark.parametrize(("layers", "bias"), [(LEAST_OPEN - 1, 0.0), (LEAST_OPEN, 1.0)])
def test_batch_normalizations_before_activations_let_most_pass_in_deep_networks(layers, bias):
    body = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU6())  # a stem, whose bias stays 0
    for _ in range(layers):
        body.extend([nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6()])
    body.extend([nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)])
    body.extend([nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 3)])
    graph = trace(body, torch.zeros(2, 3, 8, 8))
    surroundings = places(graph)
    centres = {
        entry.name: scale_of(entry, surroundings[entry.name], "zoo").centre
        for entry in graph.params
        if entry.role == "norm_bias"
    }
    opened = {f"{3 * layer + 4}.bias": bias for layer in range(layers)}
    last = 3 * layers + 4
    assert centres == {"1.bias": 0.0, **opened, f"{last}.bias": 0.0, f"{last + 2}.bias": 0.0}


def test_the_shift_at_the_end_of_a_branch_is_damped_with_its_weight():
    graph = trace(load_model("timm:cspdarknet53", device="meta"))
    surroundings = places(graph)
    weight, bias = (
        next(entry for entry in graph.params if entry.name == f"stages.1.blocks.0.conv2.bn.{kind}")
        for kind in ("weight", "bias")
    )
    rules = [scale_of(entry, surroundings[entry.name], "zoo") for entry in (weight, bias)]
    assert rules[0].centre == rules[1].centre < 0.5


@pytest.mark.parametrize(
    ("model", "kwargs", "expected"),
    [
        ("hf:gpt_neox", {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}, True),
        ("hf:llama", {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}, True),
        ("hf:gpt2", {"n_embd": 32, "n_layer": 1, "n_head": 2}, False),  # a table of positions does it
    ],
)
def test_tokens_share_a_vector_where_there_is_no_table_of_positions(model, kwargs, expected):
    graph = trace(load_model(model, device="meta", vocab_size=50, **kwargs))
    (table,) = (entry for entry in graph.params if entry.role == "embedding")
    rule = scale_of(table, places(graph)[table.name], "zoo")
    assert rule.common == expected and rule.spread == pytest.approx(96**-0.5)


def test_tied_output_maps_see_smaller_activations_the_wider_they_are():
    centres = {}
    for tied, width in ((True, 64), (True, 512), (False, 512)):
        model = load_model(
            "hf:gpt2",
            device="meta",
            n_embd=width,
            n_layer=1,
            n_head=2,
            vocab_size=50,
            tie_word_embeddings=tied,
        )
        graph = trace(model)
        (weight,) = (entry for entry in graph.params if entry.name == "transformer.ln_f.weight")
        centres[tied, width] = scale_of(weight, places(graph)[weight.name], "zoo").centre
    assert centres == {(True, 64): 1.75, (True, 512): 1.75 / 2, (False, 512): 1.75}


@pytest.mark.parametrize(
    ("vocabulary", "positions", "attention"),
    [(384, 1, 1), (1024, 0.5, 0.5), (4096, 0.125, 0.4), (10**5, 0.1, 0.4)],
)
def test_order_starts_smaller_beside_words_than_beside_characters(vocabulary, positions, attention):
    model = load_model(
        "hf:gpt2:AutoModelForCausalLM",
        device="meta",
        n_layer=1,
        n_head=2,
        n_embd=64,
        n_positions=16,
        vocab_size=vocabulary,
    )
    graph = trace(model)
    found = places(graph)
    spread = {entry.name: scale_of(entry, found[entry.name], "zoo").spread for entry in graph.params}
    plain = math.sqrt(1 / 3 / 64)
    assert spread["transformer.wte.weight"] == pytest.approx(plain)
    assert spread["transformer.wpe.weight"] == pytest.approx(positions * plain)
    assert spread["transformer.h.0.attn.c_attn.weight"] == pytest.approx(attention * plain)
    output = attention * (HEADS_OUTPUT if vocabulary <= CHARACTERS else 1)
    assert spread["transformer.h.0.attn.c_proj.weight"] == pytest.approx(output * plain / math.sqrt(2))
    assert spread["transformer.h.0.mlp.c_fc.weight"] == pytest.approx(1 / math.sqrt(64))
    assert spread["transformer.h.0.mlp.c_proj.weight"] == pytest.approx(math.sqrt(1 / 3 / 256) / math.sqrt(2))


def test_cached_keys_and_values_make_no_last_operation():
    """A caller's own example may leave the cache on, which puts out what attention reads."""
    model = load_model("hf:gpt2", device="meta", n_embd=32, n_layer=2, n_head=2, vocab_size=50)
    tokens = {"input_ids": torch.zeros(1, 8, dtype=torch.long, device="meta")}
    last = [
        [(name, place.last, place.boundary) for name, place in places(trace(model, example)).items()]
        for example in ({**tokens, "use_cache": True}, {**tokens, "use_cache": False})
    ]
    assert last[0] == last[1] and any(is_last for _, is_last, _ in last[0])


def test_what_all_logits_of_a_language_model_share_can_be_learned():
    """The bias of the last normalization alone; it starts at 0 as the others do."""
    graph = trace(load_model("hf:gpt2", n_embd=32, n_layer=1, n_head=2, vocab_size=50, n_positions=32))
    surroundings = places(graph)
    rules = {
        entry.name: scale_of(entry, surroundings[entry.name], "zoo")
        for entry in graph.params
        if entry.role == "norm_bias"
    }
    assert all(rule.centre == 0 and not rule.random for rule in rules.values()) and len(rules) == 3
    assert {name for name, rule in rules.items() if rule.spread == 1} == {"transformer.ln_f.bias"}


def test_vectors_start_at_their_neutral_value():
    assert scale_of(spec("norm_weight", (8,), "channel"), Place(), "zoo").centre == 1
    assert scale_of(spec("bias", (8,), "channel"), Place(), "zoo").centre == 0
    assert scale_of(spec("slope", (8,), "channel"), Place(), "zoo").centre == 0.25
    normalized = Place(Network(norms=frozenset({"layer_norm"})))
    assert not scale_of(spec("bias", (8,), "channel"), normalized, "zoo").random


def test_ends_of_residual_branches_are_damped_by_their_number():
    graph = trace(load_model("timm:test_vit"))
    surroundings = places(graph)
    branches = surroundings["blocks.0.mlp.fc2.weight"].branches
    assert branches == 2 * sum(name.endswith("fc2.weight") for name in surroundings)
    ends = next(spec for spec in graph.params if spec.name == "blocks.0.mlp.fc2.weight")
    free, damped = (
        scale_of(ends, place, "zoo").spread
        for place in (replace(surroundings[ends.name], branches=0), surroundings[ends.name])
    )
    assert damped == pytest.approx(free / math.sqrt(branches))
    assert surroundings["blocks.0.mlp.fc1.weight"].branches == 0


def test_unknown_rule_is_refused():
    with pytest.raises(ConfigError, match="fan must be one of"):
        scale_of(spec("linear", (6, 4), "out in"), Place(), "fan_up")
