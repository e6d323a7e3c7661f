"""Models in pieces, from the meta device: the same bits for any memory, nothing garbage, nothing half done."""

import copy
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import ghn
from ghn.decoder.cache import MAX_GRAPHS
from ghn.errors import ConfigError, PredictionError
from ghn.models import load_model

X = torch.ones(4, 8)
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 100,
    "tie_word_embeddings": True,
}
SPECS = {
    "timm:test_resnet": {},
    "timm:test_vit": {},
    "hf:gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 50, "n_positions": 32},
    "hf:llama:AutoModelForCausalLM": LLAMA,
}


class Wide(nn.Module):
    """Matrices of every arrangement, with several bands and blocks each."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(160, 700), nn.Linear(700, 160, bias=False)
        self.swapped = nn.Parameter(torch.randn(160, 320))
        self.experts = nn.Parameter(torch.randn(3, 320, 160))
        self.up = nn.ConvTranspose1d(160, 20, 3)

    def forward(self, x):
        x = self.second(self.first(x)) @ self.swapped
        x = torch.bmm(x.expand(3, -1, -1), self.experts).sum(0)
        return self.up(x[..., None])


def states(net, model, **kwargs):
    net.init_(model, torch.ones(2, 160), **kwargs)
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_memory_changes_no_bit(tiny_ghn):
    reference = states(tiny_ghn, Wide())
    assert all(value.std() > 0 for value in reference.values())
    for memory in (2**22, 2**25):
        for name, value in states(tiny_ghn, Wide(), memory=memory).items():
            assert torch.equal(value, reference[name]), name
    predicted = tiny_ghn.predict(Wide(), torch.ones(2, 160))
    assert all(torch.equal(value, reference[name]) for name, value in predicted.items())


def test_the_order_of_parameters_changes_no_bit(tiny_ghn):
    class Turned(Wide):
        def __init__(self):
            super().__init__()
            for name in ("first", "second"):
                module = self._modules.pop(name)
                self._modules[name] = module

    reference = states(tiny_ghn, Wide())
    turned = Turned()
    assert next(iter(dict(turned.named_modules()))) != "first"
    for name, value in states(tiny_ghn, turned).items():
        torch.testing.assert_close(value, reference[name], msg=name)


@pytest.mark.parametrize("spec", SPECS)
def test_a_meta_model_gets_the_bits_of_a_real_one(tiny_ghn, spec):
    real, meta = load_model(spec, **SPECS[spec]), load_model(spec, device="meta", **SPECS[spec])
    tiny_ghn.init_(real)
    report = tiny_ghn.init_(meta)
    assert report.count("kept") == 0
    expected = real.state_dict()
    for name, value in meta.state_dict().items():
        assert torch.equal(value, expected[name]), name
    for (name, one), (_, other) in zip(real.named_buffers(), meta.named_buffers(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("spec", [*SPECS, "timm:vit_small_patch16_rope_224"])
def test_buffers_on_meta_are_computed_anew(tiny_ghn, spec):
    """Rotary frequencies and the like, on a model that was constructed under ``torch.device('meta')``."""
    with torch.random.fork_rng():
        real = load_model(spec, **SPECS.get(spec, {}))
    meta = copy.deepcopy(real).to("meta")
    tiny_ghn.init_(meta)
    for (name, one), (_, other) in zip(real.named_buffers(), meta.named_buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_tied_and_frozen_parameters_stay_so(tiny_ghn):
    model = load_model("hf:gpt2", device="meta", **SPECS["hf:gpt2"])
    model.transformer.wpe.weight.requires_grad_(False)
    tiny_ghn.init_(model)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert not model.transformer.wpe.weight.requires_grad
    assert all(isinstance(p, nn.Parameter) and p.is_leaf for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("device", ["meta", None])
def test_types_are_rounded_from_the_same_values(tiny_ghn, dtype, device):
    spec = "hf:llama:AutoModelForCausalLM"
    exact, model = load_model(spec, **LLAMA), load_model(spec, device=device, **LLAMA)
    tiny_ghn.init_(exact)
    tiny_ghn.init_(model, device="cpu", dtype=dtype)
    expected = dict(exact.named_parameters())
    for name, value in model.named_parameters():
        assert value.dtype == dtype
        assert torch.equal(value, expected[name].to(dtype)), name
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.isfinite(model(input_ids=torch.zeros(1, 4, dtype=torch.long)).logits).all()


class Secret(nn.Module):
    """A buffer that its constructor alone can compute."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(8, 8)
        self.register_buffer("secret", torch.arange(8.0), persistent=False)

    def forward(self, x):
        return self.map(x) * self.secret


def test_a_buffer_that_nobody_can_compute_is_named(tiny_ghn):
    model = Secret().to("meta")
    with pytest.raises(
        PredictionError, match=r"'secret' is a buffer on the meta device.*its constructor alone"
    ):
        tiny_ghn.init_(model, X)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert model.map.weight.is_meta


class Computed(nn.Module):
    """A buffer of which its own means write as much as they are told to."""

    def __init__(self, make, rows):
        super().__init__()
        self.map, self.make, self.rows = nn.Linear(8, 8), make, rows
        self.register_buffer("table", make())
        self.reset_parameters()

    def reset_parameters(self):
        if self.rows:
            self.table[: self.rows] = self.make()[: self.rows].to(self.table.device)

    def forward(self, x):
        return self.map(x) + self.table.sum()


TABLES = {
    "mask": lambda: torch.ones(8, 8, dtype=torch.bool).tril(),
    "largest numbers": lambda: torch.full((8,), torch.iinfo(torch.int16).max, dtype=torch.int16),
    "not numbers": lambda: torch.full((8,), torch.nan),
    "frequencies": lambda: torch.arange(8.0),
}


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_a_buffer_is_computed_anew_whole_or_refused(tiny_ghn, make):
    """Also one whose right values look like memory that nothing wrote."""
    with torch.device("meta"):
        whole, partly, none = Computed(make, 8), Computed(make, 5), Computed(make, 0)
    tiny_ghn.init_(whole, X, device="cpu")
    torch.testing.assert_close(whole.table, make(), equal_nan=True)
    with torch.device("meta"):
        changed = Computed(make, 0)
    negative = torch.logical_not if changed.table.dtype == torch.bool else torch.neg
    changed.reset_parameters = lambda: changed.table.copy_(negative(changed.table))
    for model in (partly, none, changed):
        with pytest.raises(
            PredictionError, match=r"'table' is a buffer on the meta device, and nothing is known"
        ):
            tiny_ghn.init_(model, X, device="cpu")
        assert all(tensor.is_meta for tensor in model.state_dict().values())


class Shuffled(nn.Module):
    """Draws a buffer with numpy and one with Python."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(8, 8)
        self.register_buffer("order", torch.zeros(8, dtype=torch.long))
        self.register_buffer("signs", torch.zeros(8, dtype=torch.bool))
        self.reset_parameters()

    def reset_parameters(self):
        self.order.copy_(torch.from_numpy(np.random.permutation(8)))
        self.signs.copy_(torch.tensor([random.random() > 0.5 for _ in range(8)], device="cpu"))

    def forward(self, x):
        return self.map(x)[:, self.order] * self.signs


def test_buffers_that_are_drawn_are_drawn_once_per_seed(tiny_ghn):
    with torch.device("meta"):
        models = [Shuffled() for _ in range(3)]
    before = np.random.get_state()[1].copy(), random.getstate()
    for model, seed in zip(models, (0, 0, 1), strict=True):
        tiny_ghn.init_(model, X, seed=seed, device="cpu")
    assert models[0].order.tolist() == models[1].order.tolist() != models[2].order.tolist()
    assert sorted(models[0].order.tolist()) == list(range(8))
    assert (np.random.get_state()[1] == before[0]).all()
    assert random.getstate() == before[1]


class Handmade(nn.Module):
    """Parameters that its constructor alone can compute: one fixed, one in use."""

    def __init__(self, fixed: bool):
        super().__init__()
        self.map = nn.Linear(8, 8)
        self.sines = nn.Parameter(torch.arange(8.0).sin(), requires_grad=not fixed)
        self.idle = nn.Parameter(torch.ones(3), requires_grad=not fixed)

    def forward(self, x):
        return self.map(x) + self.sines


def test_fixed_parameters_are_kept_unless_the_whole_model_is_fixed(tiny_ghn):
    model, free = Handmade(fixed=True), Handmade(fixed=False)
    reports = [tiny_ghn.init_(one, X) for one in (model, free)]
    assert [report.count("predicted") for report in reports] == [2, 3]
    assert "requires_grad" in next(entry.reason for entry in reports[0].parameters if entry.name == "sines")
    assert torch.equal(model.sines, torch.arange(8.0).sin())
    assert not torch.equal(free.sines, model.sines)
    assert tiny_ghn.init_(Handmade(fixed=True).requires_grad_(False), X).count("predicted") == 3


LAYERS = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
HEADS = {"d_model": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 60000}
VIT_MAE = {"num_hidden_layers": 1, "hidden_size": 48, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.mark.parametrize(
    ("spec", "kwargs"),
    [
        ("hf:marian:MarianMTModel", LAYERS | HEADS),  # filled in the constructor
        ("hf:whisper:WhisperForConditionalGeneration", LAYERS | HEADS),  # filled by the encoder
        ("hf:vit_mae:ViTMAEModel", VIT_MAE),
    ],
)
def test_fixed_tables_of_a_meta_model_are_those_of_a_real_one(tiny_ghn, spec, kwargs):
    models = [load_model(spec, device=device, **kwargs) for device in ("meta", None)]
    for model in models:
        assert tiny_ghn.init_(model).count("kept") > 0
    fixed = {name: p for name, p in models[0].named_parameters() if not p.requires_grad}
    assert fixed
    for name, value in fixed.items():
        torch.testing.assert_close(value, models[1].get_parameter(name), msg=name)


def test_a_kept_parameter_that_nobody_can_compute_is_named(tiny_ghn):
    model = Handmade(fixed=False).to("meta")
    with pytest.raises(
        PredictionError, match=r"'idle' is a parameter, which isn't predicted.*on a real device"
    ):
        tiny_ghn.init_(model, X)
    assert model.map.weight.is_meta and model.idle.is_meta


class Spare(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.spare = nn.Linear(8, 8), nn.Linear(8, 8)
        self.lonely = None

    def forward(self, x):
        return self.used(x)


def test_parameters_that_are_not_predicted_get_their_modules_own_values(tiny_ghn):
    models = [Spare().to("meta") for _ in range(2)]
    for model in models:
        report = tiny_ghn.init_(model, X, seed=3)
    assert report.count("kept") == 2
    bound = 1 / 8**0.5
    assert 0 < models[0].spare.weight.abs().max() <= bound
    assert torch.equal(models[0].spare.weight, models[1].spare.weight)
    alone = Spare()
    alone.lonely = nn.Parameter(torch.zeros(3))
    alone.to("meta")
    with pytest.raises(
        PredictionError, match=r"'lonely' is a parameter, which isn't predicted,.*meta device"
    ):
        tiny_ghn.init_(alone, X)
    assert alone.used.weight.is_meta


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu9"}, "device='tpu9' can't be used here"),
        ({"device": "cuda:99"}, "device='cuda:99' can't be used here"),
        ({"device": "meta"}, "device='meta' holds no values"),
        ({"dtype": torch.int8}, "dtype=torch.int8 can't hold weights"),
        ({"device": 3.5}, "device=3.5 can't be used here"),
        ({"dtype": "float16"}, "dtype='float16' can't hold weights; pass one of torch.float32"),
        ({"memory": 10}, "memory=10 bytes are too few"),
        ({"memory": "1GB"}, "memory='1GB' is no number of bytes; pass a whole number"),
        ({"memory": 1e9}, "memory=1000000000.0 is no number of bytes"),
        ({"seed": "a"}, "seed='a' is no seed; pass a whole number"),
        ({"seed": 1.5}, "seed=1.5 is no seed"),
        ({"seed": True}, "seed=True is no seed"),
        ({"seed": 2**64}, "of at most 64 bits"),
    ],
)
def test_bad_options_change_nothing(tiny_ghn, options, message):
    model = nn.Linear(8, 8)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match=message):
        tiny_ghn.init_(model, X, **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_failing_halfway_leaves_a_meta_model_on_meta(tiny_ghn, monkeypatch):
    model = Wide().to("meta")
    monkeypatch.setattr("ghn.apply.local_part.LocalPart.write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tiny_ghn.init_(model, torch.ones(2, 160))
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("seed", [-(2**63), 2**64 - 1])
def test_all_seeds_of_64_bits_can_be_used(tiny_ghn, seed):
    models = nn.Linear(8, 8), nn.Linear(8, 8, device="meta")
    for model in models:
        tiny_ghn.init_(model, X, seed=seed)
    assert torch.equal(models[0].weight, models[1].weight)


def test_the_one_liner_takes_the_options(tiny_ghn, tmp_path):
    tiny_ghn.save_pretrained(tmp_path)
    model = nn.Linear(8, 8, device="meta")
    ghn.init_(model, tmp_path, X, device="cpu", dtype=torch.bfloat16, memory=2**23)
    assert model.weight.dtype == torch.bfloat16
    assert model.weight.device.type == "cpu"


def test_the_one_liner_notices_another_checkpoint_in_the_folder(tiny_ghn, tmp_path):
    models = [nn.Linear(8, 8) for _ in range(2)]
    tiny_ghn.save_pretrained(tmp_path)
    ghn.init_(models[0], tmp_path, X)
    with torch.no_grad():
        tiny_ghn.decoder.rows.out.weight.mul_(torch.linspace(0.5, 2, 4)[:, None])
    tiny_ghn.save_pretrained(tmp_path)
    ghn.init_(models[1], tmp_path, X)
    expected = tiny_ghn.predict(nn.Linear(8, 8), X)
    assert torch.equal(models[1].weight, expected["weight"])
    assert not torch.equal(models[0].weight, models[1].weight)


def test_threads_with_different_seeds_dont_mix(tiny_ghn):
    expected = {seed: states(tiny_ghn, Wide(), seed=seed) for seed in range(4)}
    tiny_ghn.cache.clear()
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda seed: states(tiny_ghn, Wide(), seed=seed), [0, 1, 2, 3] * 6))
    for seed, state in zip([0, 1, 2, 3] * 6, made, strict=True):
        for name, value in state.items():
            assert torch.equal(value, expected[seed][name]), (seed, name)


def test_what_is_kept_from_one_prediction_changes_no_bit_of_the_next(tiny_ghn):
    reference = states(tiny_ghn, Wide(), seed=4)
    assert len(tiny_ghn.cache) == 1
    for name, value in states(tiny_ghn, Wide(), seed=4).items():
        assert torch.equal(value, reference[name]), name
    other = states(tiny_ghn, Wide(), seed=5)
    assert not torch.equal(other["first.weight"], reference["first.weight"])
    for name, value in states(tiny_ghn, Wide(), seed=4).items():
        assert torch.equal(value, reference[name]), name
    bases = states(tiny_ghn, Wide(), seed=4, learned=False)
    assert not torch.equal(bases["first.weight"], reference["first.weight"])


def test_changed_weights_of_the_hypernetwork_are_noticed(tiny_ghn):
    reference = states(tiny_ghn, Wide())
    tiny_ghn.decoder.rows.out.weight.data.mul_(
        torch.linspace(0.5, 2, 4)[:, None]
    )  # seen by no version counter
    changed = states(tiny_ghn, Wide())
    assert not torch.equal(changed["first.weight"], reference["first.weight"])
    tiny_ghn.cache.clear()
    for name, value in states(tiny_ghn, Wide()).items():
        assert torch.equal(value, changed[name]), name


def test_only_so_many_graphs_are_kept_and_none_by_a_copy(tiny_ghn):
    for width in range(3, 3 + 2 * MAX_GRAPHS):
        tiny_ghn.init_(nn.Linear(8, width), X)
    assert len(tiny_ghn.cache) == MAX_GRAPHS
    assert len(copy.deepcopy(tiny_ghn).cache) == 0


@pytest.mark.parametrize("kernel", [1, 3, (1, 5)])
def test_kernels_are_orthogonal(tiny_ghn, kernel):
    model = nn.Conv2d(64, 128, kernel)
    tiny_ghn.init_(model, torch.ones(1, 64, 8, 8), learned=False)
    matrix = model.weight.detach().flatten(1)
    few = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    gram = few @ few.mT / few.square().sum(1).mean()
    torch.testing.assert_close(gram, torch.eye(len(few)), atol=1e-4, rtol=0)


class Odd(nn.Module):
    """A scalar, an empty tensor, and a kernel whose memory is not in order."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 6, 3).to(memory_format=torch.channels_last)
        self.scale, self.nothing = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(0, 6))

    def forward(self, x):
        return (self.conv(x) * self.scale).sum((2, 3)) @ torch.cat([self.nothing, torch.eye(6)])


def test_odd_shapes_and_strides(tiny_ghn):
    model, images = Odd(), torch.ones(1, 8, 5, 5)
    predicted = tiny_ghn.predict(model, images)
    report = tiny_ghn.init_(model, images)
    assert report.count("predicted") >= 3
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    for name, value in predicted.items():
        assert torch.equal(dict(model.named_parameters())[name], value), name
