"""Predictions in place: all of a model or nothing of it."""

import copy

import accelerate
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import ghn
from ghn.apply.local_part import LocalPart
from ghn.errors import ConfigError, PredictionError, TraceError
from ghn.models import load_model

X = torch.ones(4, 8)


def _model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def _equal(one: nn.Module, other: nn.Module) -> bool:
    expected = other.state_dict()
    return all(torch.equal(value, expected[name]) for name, value in one.state_dict().items())


def test_init_writes_what_predict_returns(tiny_ghn):
    model = _model()
    parameters = list(model.parameters())
    predicted = tiny_ghn.predict(model, X, seed=2)
    report = tiny_ghn.init_(model, X, seed=2)
    assert report.count("predicted") == len(predicted) == 6
    assert all(torch.equal(value, predicted[name]) for name, value in model.named_parameters())
    assert all(new is old for new, old in zip(model.parameters(), parameters, strict=True))
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())
    model(X).sum().backward()


@pytest.mark.gpu
def test_a_gpu_gives_the_weights_of_the_cpu(tiny_ghn):
    on_cpu, there, both = _model(), _model().cuda(), _model().cuda()
    tiny_ghn.init_(on_cpu, X)
    tiny_ghn.init_(there, X)
    copy.deepcopy(tiny_ghn).cuda().init_(both, X)
    for one, exact, close in zip(*(model.parameters() for model in (on_cpu, there, both)), strict=True):
        assert exact.is_cuda and torch.equal(exact.cpu(), one)
        torch.testing.assert_close(close.cpu(), one, rtol=1e-3, atol=1e-5)


def test_same_seed_same_model(tiny_ghn):
    models = [_model() for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        tiny_ghn.init_(model, X, seed=seed)
    assert _equal(models[0], models[1])
    assert not _equal(models[0], models[2])


def test_buffers_and_mode_stay(tiny_ghn):
    model = _model().train()
    model(X)
    mean = model[1].running_mean.clone()
    tiny_ghn.init_(model, X)
    assert torch.equal(model[1].running_mean, mean)
    assert model.training


def test_damaged_weights_leave_the_model_as_it_was(tiny_ghn):
    model = _model()
    before = copy.deepcopy(model)
    nn.init.constant_(tiny_ghn.decoder.statistics.net[-1].bias, float("nan"))
    with pytest.raises(
        PredictionError, match=r"'0\.weight' of shape \(16, 8\) is not finite.*another checkpoint"
    ):
        tiny_ghn.init_(model, X)
    assert _equal(model, before)


def test_wrong_inputs_leave_the_model_as_it_was(tiny_ghn):
    model = _model()
    before = copy.deepcopy(model)
    with pytest.raises(TraceError):
        tiny_ghn.init_(model, torch.ones(4, 9))
    assert _equal(model, before)


def test_nothing_to_predict(tiny_ghn):
    waves = nn.Linear(8, 8, bias=False, dtype=torch.cfloat)
    with pytest.raises(PredictionError, match="'weight', for one, is kept: it holds complex64"):
        tiny_ghn.init_(waves, torch.ones(2, 8, dtype=torch.cfloat))
    with pytest.raises(PredictionError, match="ReLU has no parameter to predict: it has none at all"):
        tiny_ghn.init_(nn.ReLU(), X)


@pytest.mark.parametrize("seed", ["a", 1.5, 2**64])
def test_predict_takes_the_seeds_that_init_takes(tiny_ghn, seed):
    with pytest.raises(ConfigError, match="is no seed"):
        tiny_ghn.predict(_model(), X, seed=seed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net: net.half(), r"is torch.float16, and it computes in torch.float32; call net.float\(\)"),
        (lambda net: net.double(), "is torch.float64"),
        (lambda net: net.to("meta"), "is on the meta device and has no values"),
    ],
    ids=["half", "double", "meta"],
)
@pytest.mark.parametrize("method", ["init_", "predict"])
def test_a_hypernetwork_that_cannot_compute_says_so(tiny_ghn, change, message, method):
    with pytest.raises(PredictionError, match=message):
        getattr(change(tiny_ghn), method)(_model(), X)


def _expanded() -> nn.Module:
    model = _model()
    model[3].weight = nn.Parameter(torch.ones(1, 16).expand(3, 16))
    return model


def _inference() -> nn.Module:
    model = _model()
    with torch.inference_mode():
        model[3] = nn.Linear(16, 3)
    return model


def test_lazy_parameters_are_refused(tiny_ghn):
    model = nn.Sequential(nn.LazyLinear(4))
    with pytest.raises(PredictionError, match=r"Sequential's '0\.weight' is lazy.*run the model once"):
        tiny_ghn.init_(model, X)


@pytest.mark.parametrize(
    ("make", "message"), [(_expanded, r"'3\.weight' is an expanded view"), (_inference, "inference_mode")]
)
def test_unwritable_parameters_are_refused_before_any_is_written(tiny_ghn, make, message):
    model = make()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(PredictionError, match=message):
        tiny_ghn.init_(model, X)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.sparse = nn.Parameter(torch.eye(16).to_sparse())
        self.map = nn.Linear(16, 4)

    def forward(self, x):
        return self.map(torch.sparse.mm(self.sparse, x.mT).mT)


def test_sparse_parameters_are_kept(tiny_ghn):
    model = Sparse()
    report = tiny_ghn.init_(model, torch.ones(2, 16))
    assert "kept sparse (16, 16): it is sparse: predicted weights are dense" in str(report)
    assert report.count("predicted") == 2
    assert torch.equal(model.sparse.to_dense(), torch.eye(16))


@pytest.mark.parametrize(
    "places", [{"0": "cpu", "1": "cpu", "2": "cpu"}, {"0": "cpu", "1": "cpu", "2": "disk"}]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_models_that_accelerate_dispatched_are_traced_or_refused(tiny_ghn, tmp_path, places):
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    if "disk" not in places.values():
        accelerate.dispatch_model(model, places, main_device="cpu", force_hooks=True)
        assert tiny_ghn.init_(model, torch.ones(2, 16)).count("predicted") == 4
        return
    accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=tmp_path)
    for method in (tiny_ghn.init_, tiny_ghn.predict):
        with pytest.raises(TraceError, match=r"'2' is offloaded by accelerate.*before dispatch_model"):
            method(model, torch.ones(2, 16))


def test_freed_memory_is_noticed_before_anything_is_written(tiny_ghn):
    """As a device that is gone would be."""
    model = _model()
    before = model[0].weight.clone()
    model[3].weight.untyped_storage().resize_(0)
    with pytest.raises(PredictionError, match=r"'3\.weight' can't be written .* construct it again"):
        tiny_ghn.init_(model, X)
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("error", [RuntimeError("the device was lost"), MemoryError()], ids=type)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_failure_midway_is_told(tiny_ghn, monkeypatch, error, device):
    model, write = _model().to(device), LocalPart.write

    def fail_at_the_last(place, *rest):
        if place.name == "3.bias":
            raise error
        write(place, *rest)

    monkeypatch.setattr(LocalPart, "write", fail_at_the_last)
    if device == "meta":
        with pytest.raises(type(error)):
            tiny_ghn.init_(model, X)
        assert all(parameter.is_meta for parameter in model.parameters())
        return
    reason = str(error) or "MemoryError"
    with pytest.raises(PredictionError, match=rf"failed midway \({reason}\).*construct it again") as caught:
        tiny_ghn.init_(model, X)
    assert caught.value.__cause__ is error


def test_an_interruption_midway_is_told(tiny_ghn, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalPart, "write", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        tiny_ghn.init_(_model(), X)
    assert "some of its parameters may be predicted" in caught.value.__notes__[0]


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["DataParallel", "compile"])
def test_wrapped_models(tiny_ghn, wrap):
    model, plain = _model(), _model()
    wrapped = wrap(model)
    report = tiny_ghn.init_(wrapped, X)
    assert [entry.name for entry in report.parameters] == [name for name, _ in model.named_parameters()]
    assert report.count("predicted") == 6
    tiny_ghn.init_(plain, X)
    for value, expected in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(value.cpu(), expected)  # the wrapper takes the model to a GPU, if there is one
    predicted = tiny_ghn.predict(wrapped, X)
    assert list(predicted) == [name for name, _ in wrapped.named_parameters()]
    for value, expected in zip(predicted.values(), plain.parameters(), strict=True):
        torch.testing.assert_close(value.cpu(), expected.detach())


def test_half_precision_and_frozen_parameters(tiny_ghn):
    model = _model().bfloat16().requires_grad_(False)
    before = copy.deepcopy(model)
    report = tiny_ghn.init_(model, X.bfloat16())
    assert report.count("predicted") == 6
    assert not torch.equal(model[0].weight, before[0].weight)
    assert all(p.dtype == torch.bfloat16 and not p.requires_grad for p in model.parameters())


def test_parametrized_weights(tiny_ghn):
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(8, 8)),
        parametrizations.spectral_norm(nn.Linear(8, 8)),
        parametrizations.orthogonal(nn.Linear(8, 8)),
    )
    report = tiny_ghn.init_(model, X)
    kept = [entry.name for entry in report.parameters if entry.fate == "kept"]
    assert kept == ["2.parametrizations.weight.original"]  # zeros, which turn an orthogonal base
    assert torch.isfinite(model(X)).all()
    torch.testing.assert_close(model[2].weight @ model[2].weight.mT, torch.eye(8), atol=1e-4, rtol=0)


def test_reflections_are_no_weights(tiny_ghn):
    """What torch keeps of an orthogonal matrix that isn't square: its diagonal are signs, as whole numbers."""
    model = nn.Sequential(parametrizations.orthogonal(nn.Linear(8, 4)), nn.Linear(4, 2))
    report = tiny_ghn.init_(model, X)
    assert [entry.name for entry in report.parameters if entry.fate == "kept"] == [
        "0.parametrizations.weight.original"
    ]
    torch.testing.assert_close(model[0].weight @ model[0].weight.mT, torch.eye(4), atol=1e-4, rtol=0)


@pytest.mark.parametrize("vocabulary", [20, 4000])
def test_padding_is_zero_as_nothing_trains_it(tiny_ghn, vocabulary):
    model = nn.Sequential(nn.Embedding(vocabulary, 64, padding_idx=3), nn.LayerNorm(64), nn.Linear(64, 2))
    tokens = torch.zeros(2, 8, dtype=torch.long)
    tiny_ghn.init_(model, tokens)
    assert model[0].weight.abs().sum(-1).eq(0).nonzero().tolist() == [[3]]
    predicted = tiny_ghn.predict(model, tokens)
    torch.testing.assert_close(predicted["0.weight"], model[0].weight)


def test_models_are_read_under_another_default_device(tiny_ghn):
    """Masks and positions are followed by real numbers, wherever new tensors go to."""
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 40, "n_positions": 32}
    with torch.device("meta"):
        model = load_model("hf:gpt2", **sizes)
        tiny_ghn.init_(model, device="cpu")
    expected = load_model("hf:gpt2", **sizes)
    tiny_ghn.init_(expected)
    assert _equal(model, expected)


def test_tied_weights_stay_tied(tiny_ghn):
    model = load_model("hf:gpt2", n_embd=32, n_layer=1, n_head=2, vocab_size=50, n_positions=32)
    tiny_ghn.init_(model)
    assert model.lm_head.weight is model.transformer.wte.weight


def test_the_one_liner_takes_a_checkpoint(tiny_ghn, tmp_path):
    tiny_ghn.save_pretrained(tmp_path / "net")
    model, same = _model(), _model()
    report = ghn.init_(model, tmp_path / "net", inputs=X, seed=4)
    tiny_ghn.init_(same, X, seed=4)
    assert report.count("predicted") == 6
    assert _equal(model, same)
