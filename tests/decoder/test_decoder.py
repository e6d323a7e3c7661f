"""Laws of decoded parameters, on untrained hypernetworks."""

from dataclasses import asdict
from statistics import fmean

import pytest
import torch
from torch import nn
from torch.func import functional_call

from ghn.base import decisions
from ghn.base.previous_token import find_previous_token_attentions
from ghn.decoder import DecodeCache, DecoderConfig
from ghn.decoder.statistics import StatisticsHead
from ghn.errors import ConfigError
from ghn.hypernetwork import GHN, GHNConfig
from ghn.models import load_model
from ghn.tracing.trace import trace


class Sequence(nn.Module):
    """Embedding, LSTM and head."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.embed, self.rnn, self.head = nn.Embedding(20, 8), nn.LSTM(8, width), nn.Linear(width, 3)

    def forward(self, tokens):
        return self.head(self.rnn(self.embed(tokens))[0])


def factors(net, graph):
    """Row and column factors by number of the parameter."""
    cache = DecodeCache()
    with torch.no_grad():
        list(net.decoder.stream(net.decoder.plan(graph), net.encode(graph), 0, cache=cache))
    return {
        number: pair
        for numbers, pairs in cache.factors.items()
        for number, pair in zip(numbers, pairs, strict=True)
    }


TARGETS = {
    "cnn": lambda: (load_model("timm:test_resnet", num_classes=7), torch.randn(2, 3, 64, 64)),
    "vit": lambda: (load_model("timm:test_vit", num_classes=7), torch.randn(2, 3, 160, 160)),
    "lstm": lambda: (Sequence(), torch.randint(0, 20, (5, 2))),
    "gpt2": lambda: (
        load_model("hf:gpt2", n_embd=32, n_layer=2, n_head=2, vocab_size=50, n_positions=32),
        {"input_ids": torch.randint(0, 50, (2, 8)), "use_cache": False},
    ),
}


@pytest.mark.parametrize("target", TARGETS)
def test_spread_follows_the_scale_rule(tiny_ghn, target):
    """Untrained gains are within 1 % of one; the standard deviation of 1000 numbers is known to about 3 %."""
    graph = trace(*TARGETS[target]())
    rules, predicted = decisions(graph), tiny_ghn.predict_graph(graph).params
    found = {entry.attention.query.weight.name for entry in find_previous_token_attentions(graph)}
    for spec in graph.params:
        if spec.name in found:
            continue  # queries and keys have more than the rule says
        rule, values = rules[spec.name].init, predicted[spec.name].detach()
        assert values.shape == spec.shape
        if rule.random and spec.numel >= 1000:
            assert values.std().item() == pytest.approx(rule.std, rel=0.1), spec.name
            assert abs(values.mean().item()) < (0.2 if spec.role == "position" else 0.1) * rule.std, spec.name
        elif not rule.random:
            assert (values - rule.mean).abs().max() < max(rule.std, 0.05), spec.name


@pytest.mark.parametrize("target", TARGETS)
def test_no_two_rows_are_equal(tiny_ghn, target):
    for name, values in tiny_ghn.predict_graph(trace(*TARGETS[target]())).params.items():
        if values.dim() > 1 and values.squeeze().dim() > 1:
            matrix = values.detach().flatten(1)
            assert len(matrix.unique(dim=0)) == len(matrix), name
            assert len(matrix.mT.unique(dim=0)) == matrix.shape[1], name


def test_rows_differ_at_widths_never_seen(tiny_ghn):
    """No cap and no tiling: row 4999 is like no other; neither are those of the learned part alone."""
    graph = trace(
        nn.Sequential(nn.Embedding(5000, 48), nn.Linear(48, 5000)), torch.zeros(1, 2, dtype=torch.long)
    )
    table, matrix, _bias = tiny_ghn.predict_graph(graph).params.values()
    assert len(table.unique(dim=0)) == len(matrix.unique(dim=0)) == 5000
    made = factors(tiny_ghn, graph)
    for number in range(2):
        assert len(made[number][0].unique(dim=0)) == 5000


def test_the_learned_part_has_a_flat_spectrum(tiny_ghn):
    graph = trace(nn.Sequential(nn.Linear(64, 96), nn.Conv2d(3, 40, 3)), torch.ones(1, 3, 8, 64))
    matrices = [spec for spec in graph.params if len(spec.shape) > 1]
    assert len(matrices) == 2
    made = factors(tiny_ghn, graph)
    for number, spec in enumerate(graph.params):
        if spec in matrices:
            rows, columns = made[number]
            values = torch.linalg.svdvals(rows @ columns.mT)[: tiny_ghn.config.decoder.rank]
            energy = values.square() / values.square().sum()
            assert energy.max() < 1.6 / len(energy), spec.name
            assert (rows @ columns.mT).square().mean().item() == pytest.approx(1, rel=1e-3)


def test_positions_of_texts_are_waves_those_of_patches_are_not(tiny_ghn):
    text = tiny_ghn.predict_graph(trace(*TARGETS["gpt2"]()), learned=False).params["transformer.wpe.weight"]
    patches = tiny_ghn.predict_graph(trace(*TARGETS["vit"]()), learned=False).params["pos_embed"][0, 1:]
    alike = [torch.cosine_similarity(table[:-1], table[1:]).mean() for table in (text, patches)]
    assert alike[0] > 0.5 > 0.2 > alike[1].abs()


@pytest.mark.parametrize(
    ("target", "edges"),
    [
        ("gpt2", {"transformer.wte.weight"}),
        ("vit", {"patch_embed.proj.weight", "patch_embed.proj.bias", "head.weight"}),
        ("cnn", {"conv1.0.weight", "fc.weight"}),
    ],
)
def test_what_has_a_learned_part(target, edges):
    graph = trace(*TARGETS[target]())
    matrices = {name for name, decision in decisions(graph).items() if decision.init.random}
    vectors = {spec.name for spec in graph.params} - matrices
    tokens = edges | vectors if target == "gpt2" else set()
    for scope, expected in (("tokens", tokens), ("io", edges | vectors), ("all", matrices | vectors)):
        net = GHN(GHNConfig(decoder=DecoderConfig(hidden=16, rank=4, scope=scope)))
        made = factors(net, graph)
        assert {graph.params[number].name for number in made} == expected
        base, predicted = net.predict_graph(graph, learned=False).params, net.predict_graph(graph).params
        assert {name for name in base if not torch.equal(base[name], predicted[name])} == expected


def test_seeds_key_the_random_part(tiny_ghn):
    graph = trace(*TARGETS["cnn"]())
    first, same, other = (
        tiny_ghn.predict_graph(graph, 0).params,
        tiny_ghn.predict_graph(graph, 0).params,
        tiny_ghn.predict_graph(graph, 1).params,
    )
    for spec in graph.params:
        assert torch.equal(first[spec.name], same[spec.name])
        assert torch.equal(first[spec.name], other[spec.name]) == (len(spec.shape) == 1), spec.name


def test_prediction_draws_from_no_global_generator(tiny_ghn):
    graph, state = trace(*TARGETS["lstm"]()), torch.get_rng_state()
    assert tiny_ghn.predict_graph(graph).params
    assert torch.equal(torch.get_rng_state(), state)


class Branches(nn.Module):
    """Registers its layers in the given order; computes the same."""

    def __init__(self, order: str):
        super().__init__()
        for name in order:
            self.add_module(name, nn.Linear(8, 8))

    def forward(self, x):
        return self.a(x) + self.b(torch.relu(self.c(x)))


def test_order_of_parameters_is_irrelevant(tiny_ghn):
    x = torch.ones(2, 8)
    one, other = (tiny_ghn.predict_graph(trace(Branches(order), x)).params for order in ("abc", "cba"))
    assert one.keys() == other.keys()
    assert list(one) != list(other)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-6)


def test_equal_layers_in_different_places_differ(tiny_ghn):
    """The learned part too: factors are told apart by place in the graph, not by seed."""
    graph = trace(nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(3))), torch.ones(2, 8))
    made = factors(tiny_ghn, graph)
    products = [made[number][0] @ made[number][1].mT for number in (0, 2)]
    assert not torch.allclose(*products, atol=1e-3)


def test_gradient_reaches_every_weight_of_the_hypernetwork(tiny_ghn):
    torch.manual_seed(0)
    total = torch.zeros(())
    for name in ("cnn", "vit", "lstm"):
        model, inputs = TARGETS[name]()
        model.eval()
        total = total + functional_call(model, tiny_ghn.predict(model, inputs), (inputs,)).square().mean()
    total.backward()
    without = [
        name for name, weight in tiny_ghn.named_parameters() if weight.grad is None or not weight.grad.any()
    ]
    assert without == []
    assert all(torch.isfinite(weight.grad).all() for weight in tiny_ghn.parameters())


def test_base_alone_ignores_the_weights(tiny_ghn):
    graph = trace(*TARGETS["lstm"]())
    torch.manual_seed(5)
    other = GHN(tiny_ghn.config)
    one, same = (
        tiny_ghn.predict_graph(graph, learned=False).params,
        other.predict_graph(graph, learned=False).params,
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(tiny_ghn.predict_graph(graph).params["head.weight"], one["head.weight"])


class Recording:
    """Standard deviations of the outputs of some modules, and of the model's own output over the batch."""

    def __init__(self, model: nn.Module, blocks: list[str], images: torch.Tensor):
        self.deviations: list[float] = []
        modules = dict(model.named_modules())
        hooks = [modules[name].register_forward_hook(self._add) for name in blocks]
        with torch.no_grad():
            self.spread = model(images).std(dim=0).mean().item()
        for hook in hooks:
            hook.remove()

    def _add(self, _module, _inputs, output):
        self.deviations.append(output.std().item())


DEEP = {
    "torchvision:resnet18": [f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)],
    "timm:test_resnet": [f"layer{stage}" for stage in range(1, 5)],
    "timm:test_vit": [f"blocks.{block}" for block in range(5)],
    "timm:test_vit2": [f"blocks.{block}" for block in range(5)],
    "timm:convnext_tiny": [f"stages.{stage}" for stage in range(4)],
}


@pytest.mark.parametrize("spec", DEEP)
def test_untrained_activations_are_like_the_zoos_own(tiny_ghn, spec):
    """Within 0.5-2x at every block, and outputs depend on the input as much (in train mode: batch statistics)."""
    torch.manual_seed(0)
    shallow = {"depths": (1, 1, 2, 1)} if "convnext" in spec else {}
    model = load_model(spec, num_classes=16, **shallow).train()
    blocks = [name for name in DEEP[spec] if name in dict(model.named_modules())]
    images = torch.randn(4, 3, 160, 160)
    zoo = Recording(model, blocks, images)
    tiny_ghn.init_(model)
    ours = Recording(model, blocks, images)
    ratios = [ours / zoo for ours, zoo in zip(ours.deviations, zoo.deviations, strict=True)]
    assert len(blocks) >= 4
    assert min(ratios) > 0.5 and max(ratios) < 2, ratios
    # Position tables as large as patches dilute the input: 0.64 on average over seeds, 0.38 at worst of six.
    assert ours.spread > 0.3 * zoo.spread


@pytest.mark.parametrize(
    "settings", [{"base": "uniform"}, {"scheme": "both"}, {"rank": 0}, {"max_trust": 1.0}, {"max_gain": 0.5}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError, match=r"base must be|decoder (sizes must|needs)"):
        DecoderConfig(**settings)


@pytest.mark.parametrize(("most", "start"), [(0.7, 0.1), (0.2, 0.1), (0.05, 0.025)])
def test_trust_starts_low_and_within_its_bound(most, start):
    statistics = StatisticsHead(8, DecoderConfig(max_trust=most)).defaults(torch.zeros(1, 8))
    assert statistics.trust.item() == pytest.approx(start)


@pytest.mark.parametrize("scheme", ["fan_in", "fan_out"])
def test_heads_under_hyperfan_give_weights_of_the_rules_size_and_kaiming_heads_do_not(scheme):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 300)), torch.randn(2, 300)
    graph = trace(model, x)
    weights = [spec for spec in graph.params if spec.role == "linear"]
    rules = {spec.name: decisions(graph, scheme=scheme)[spec.name].init.std for spec in weights}
    for output, fits in (("hyperfan", True), ("kaiming", False)):
        config = {"version": 1, "decoder": asdict(DecoderConfig(base="none", output=output, scheme=scheme))}
        draws = [GHN(config).predict_graph(graph).params for _ in range(5)]
        for name, spread in rules.items():
            size = fmean(predicted[name].detach().square().mean().item() for predicted in draws) ** 0.5
            assert (0.5 < size / spread < 2) == fits, (output, name, size / spread)


def test_without_a_base_everything_is_learned(tiny_ghn):
    model, x = nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 8)), torch.ones(2, 8)
    net = GHN({"version": 1, "decoder": {"base": "none", "rank": 4}})
    one, other = net.predict(model, x, seed=0), net.predict(model, x, seed=1)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.linalg.matrix_rank(one["0.weight"].detach()) <= 4
    with pytest.raises(ConfigError, match="nothing to fill"):
        net.predict(model, x, learned=False)


@pytest.mark.parametrize("setting", [{"output": "glorot"}, {"output": "xavier"}, {"base": "zeros"}])
def test_outputs_that_make_no_sense_are_refused(setting):
    with pytest.raises(ConfigError, match=r"output|base"):
        DecoderConfig(**setting)


@pytest.mark.parametrize(
    "settings", [{"scope": "all"}, {"scope": "all", "output": "hyperfan"}, {"scope": "tokens"}]
)
def test_a_forward_pass_predicts_each_graph_as_alone(settings):
    """Another width, an equal geometry, and the same graph again are in the company."""
    net = GHN(GHNConfig(decoder=DecoderConfig(hidden=16, rank=4, **settings)))
    graphs = [trace(*TARGETS[target]()) for target in ("gpt2", "vit", "lstm", "gpt2")]
    for graph, (params, prediction) in zip(graphs, net(graphs, seed=3), strict=True):
        assert prediction.graph is graph
        alone = net.predict_graph(graph, seed=3).params
        assert list(alone) == list(params)
        for name, values in alone.items():
            assert torch.equal(values, params[name]), name
            assert values.is_contiguous()


@pytest.mark.parametrize("target", ["cnn", "gpt2"])
def test_what_a_prediction_in_inference_mode_leaves_behind_takes_gradients(tiny_ghn, target):
    graph = trace(*TARGETS[target]())
    with torch.inference_mode():
        before = tiny_ghn.predict_graph(graph).params
    with torch.no_grad():
        again = tiny_ghn.predict_graph(graph, seed=0).params
    after = tiny_ghn.predict_graph(graph).params
    sum(values.square().sum() for values in after.values()).backward()
    assert any(parameter.grad is not None for parameter in tiny_ghn.parameters())
    for name, values in after.items():
        assert torch.equal(values, before[name])
        assert torch.equal(values, again[name])
