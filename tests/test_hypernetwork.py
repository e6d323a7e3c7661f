"""The hypernetwork as its users meet it: predictions, files, and refusals."""

import copy
import json

import pytest
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.func import functional_call

from ghn.decoder.config import DENSE, DecoderConfig
from ghn.decoder.plan import plan_parameters
from ghn.decoder.slots import slot_sizes
from ghn.errors import CheckpointError, ConfigError, OutputError
from ghn.hypernetwork import FORMAT_VERSION, GHN, GHNConfig
from ghn.tracing.trace import trace

X = torch.ones(2, 8)


def _edit(folder, change):
    file = folder / "config.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


@pytest.fixture
def saved(tiny_ghn, tmp_path):
    tiny_ghn.save_pretrained(tmp_path / "net")
    return tmp_path / "net"


def test_saving_and_loading_changes_no_bit(tiny_ghn, saved):
    loaded = GHN.from_pretrained(saved)
    assert loaded.config == tiny_ghn.config
    assert not loaded.training
    expected = tiny_ghn.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    graph = trace(nn.Linear(8, 8), X)
    one, other = tiny_ghn.predict_graph(graph, seed=3).params, loaded.predict_graph(graph, seed=3).params
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_is_safetensors_and_a_configuration(saved):
    assert {file.name for file in saved.iterdir()} - {"README.md"} == {"config.json", "model.safetensors"}
    assert json.loads((saved / "config.json").read_text())["version"] == FORMAT_VERSION


@pytest.fixture
def slots():
    """A hypernetwork of slots, as an earlier version would have it."""
    graph = trace(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 10)), X)
    sizes = slot_sizes([("mlp", graph, plan_parameters(graph, DecoderConfig(scope="all")))], DENSE)
    return GHN(GHNConfig(version=2, decoder=DecoderConfig(slots=sizes)))


def test_compressed_tables_are_of_this_version(slots, tmp_path):
    slots.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["version"] == FORMAT_VERSION
    again = GHN.from_pretrained(tmp_path)
    rows = slots.decoder.bank.rows[0]
    assert (again.decoder.bank.rows[0] - rows).abs().max() <= rows.abs().max() / 7


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_loading_heeds_no_default_device_or_dtype(slots, tmp_path, device):
    slots.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["decoder.bank.gain"]  # as files had none at first
    save_file(tensors, file)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device(device):
            loaded = GHN.from_pretrained(tmp_path, map_location=torch.device("cpu"))
    finally:
        torch.set_default_dtype(torch.float32)
    values = {**dict(loaded.named_parameters()), **dict(loaded.named_buffers())}
    assert {(value.dtype, value.device.type) for value in values.values()} == {(torch.float32, "cpu")}
    assert all(value.requires_grad for value in loaded.parameters()) and not loaded.training
    assert not values["decoder.bank.gain"].any()


def test_saving_twice_overwrites(tiny_ghn, saved):
    nn.init.ones_(tiny_ghn.decoder.rows.out.bias)
    tiny_ghn.save_pretrained(saved)
    assert GHN.from_pretrained(saved).decoder.rows.out.bias.eq(1).all()


def test_a_file_in_the_way_of_a_checkpoint_is_named(tiny_ghn, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for path in (file, file / "net"):
        with pytest.raises(
            OutputError, match=r"no checkpoint can be written to .*file.*: .*; pass another folder"
        ):
            tiny_ghn.save_pretrained(path)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left")])
@pytest.mark.parametrize("existing", [True, False])
def test_a_full_disk_leaves_the_earlier_checkpoint_or_none(tiny_ghn, tmp_path, monkeypatch, error, existing):
    def full(weights, path):
        path.write_text("half")
        raise error

    earlier = {}
    if existing:
        tiny_ghn.save_pretrained(tmp_path)
        earlier = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr("ghn.hypernetwork.files.save_file", full)
    with pytest.raises(OutputError, match=r"no checkpoint can be written to .*No space left.*; pass another"):
        tiny_ghn.save_pretrained(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == earlier


def test_a_newer_version_is_refused_before_its_settings_are_read(saved):
    _edit(saved, lambda values: values.update(version=FORMAT_VERSION + 1, novelty=1))
    with pytest.raises(ConfigError, match=r"newer.*pip install -U ghn") as caught:
        GHN.from_pretrained(saved)
    assert isinstance(caught.value, CheckpointError)


def test_unknown_settings_are_refused_with_a_suggestion(saved):
    _edit(saved, lambda values: values["encoder"].update(hiden=4))
    with pytest.raises(ConfigError, match=r"encoder has no setting 'hiden'\. Did you mean 'hidden'"):
        GHN.from_pretrained(saved)
    with pytest.raises(ConfigError, match=r"no setting 'encodr'\. Did you mean 'encoder'"):
        GHNConfig.from_dict({"version": 1, "encodr": {}})


@pytest.mark.parametrize(
    "values", [{"encoder": {"hidden": "many"}}, {"encoder": 3}, {"decoder": {"rank": -1}}]
)
def test_wrong_values_are_refused(saved, values):
    _edit(saved, lambda config: config.update(values))
    with pytest.raises((ConfigError, CheckpointError)):
        GHN.from_pretrained(saved)


def test_truncated_weights_are_refused(saved):
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"can't be loaded.*truncated, corrupted"):
        GHN.from_pretrained(saved)


def test_weights_that_are_not_finite_are_refused(saved):
    weights = load_file(saved / "model.safetensors")
    weights["encoder.norm.bias"][0] = float("nan")
    save_file(weights, saved / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"'encoder\.norm\.bias', which is not finite"):
        GHN.from_pretrained(saved)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"layers": 1_000_000}, r"holds \d+ tensors, too few for the 1000000 layers of config\.json"),
        ({"hidden": 2**20, "heads": 1}, r"has shape .*expected \(\d+, 1048576\)"),
        ({"hidden": 2**40}, r"config\.json: encoder sizes must be from 1 to 1048576"),
    ],
)
def test_sizes_are_compared_with_the_file_before_anything_is_built(saved, setting, message):
    _edit(saved, lambda values: values["encoder"].update(setting))
    with pytest.raises(CheckpointError, match=message):
        GHN.from_pretrained(saved)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool])
def test_weights_that_are_no_floating_point_numbers_are_refused(saved, dtype):
    weights = load_file(saved / "model.safetensors")
    weights["encoder.norm.bias"] = weights["encoder.norm.bias"].to(dtype)
    save_file(weights, saved / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"encoder\.norm\.bias has type .*expected floating-point"):
        GHN.from_pretrained(saved)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_weights_of_another_precision_load(saved, dtype):
    weights = {name: value.to(dtype) for name, value in load_file(saved / "model.safetensors").items()}
    save_file(weights, saved / "model.safetensors")
    assert all(weight.dtype == torch.float32 for weight in GHN.from_pretrained(saved).parameters())


def test_weights_of_another_network_are_refused(saved):
    weights = load_file(saved / "model.safetensors")
    weights.pop("encoder.norm.bias")
    save_file(weights, saved / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"can't be loaded.*Missing key.*encoder\.norm\.bias"):
        GHN.from_pretrained(saved)


def test_a_hub_id_without_a_network_is_an_error_of_ours(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"no checkpoint at 'nobody/nothing'.*reachable on the hub"):
        GHN.from_pretrained("nobody/nothing", cache_dir=tmp_path)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.text, self.head = nn.Conv2d(3, 8, 3), nn.Embedding(10, 8), nn.Linear(8, 2)

    def forward(self, image, tokens):
        return self.head(self.image(image).mean((2, 3)) + self.text(tokens).mean(1))


def test_predictions_fit_a_custom_module_with_two_inputs(tiny_ghn):
    model, inputs = TwoInputs(), (torch.ones(2, 3, 8, 8), torch.zeros(2, 4, dtype=torch.long))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    predicted = tiny_ghn.predict(model, inputs)
    assert {name: value.shape for name, value in predicted.items()} == {
        name: value.shape for name, value in model.named_parameters()
    }
    assert torch.isfinite(functional_call(model, predicted, inputs)).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_predictions_have_each_parameters_type(tiny_ghn):
    predicted = tiny_ghn.predict(nn.Linear(8, 8).bfloat16(), X.bfloat16())
    assert {value.dtype for value in predicted.values()} == {torch.bfloat16}


def test_models_on_the_meta_device_get_real_predictions(tiny_ghn):
    predicted = tiny_ghn.predict(nn.Linear(8, 8).to("meta"), X)
    assert all(value.device == tiny_ghn.device for value in predicted.values())
    same = tiny_ghn.predict(nn.Linear(8, 8), X)
    assert all(torch.equal(predicted[name], same[name]) for name in same)


def test_a_mapping_configures(tiny_ghn):
    assert GHN(tiny_ghn.config.to_dict()).config == tiny_ghn.config
    assert GHN().config == GHNConfig()


def test_a_hypernetwork_without_values_is_not_saved(tiny_ghn, tmp_path):
    with pytest.raises(OutputError, match="meta device has no values"):
        copy.deepcopy(tiny_ghn).to("meta").save_pretrained(tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_settings_are_read_by_their_names_in_files_and_by_today_s(tmp_path):
    files = {"fan": "zoo", "scope": "edges", "hidden": 16, "rank": 4}
    for settings in (files, {"scheme": "adaptive", "scope": "io", "hidden": 16, "rank": 4}):
        net = GHN({"version": 1, "decoder": settings})
        assert (net.config.decoder.scheme, net.config.decoder.scope) == ("adaptive", "io")
        net.save_pretrained(tmp_path)
        written = json.loads((tmp_path / "config.json").read_text())["decoder"]
        assert {name: written[name] for name in files} == files
    assert GHN.from_pretrained(tmp_path).config == net.config


def test_a_wrapper_for_distributed_training_holds_it(tiny_ghn, tmp_path):
    graph = trace(nn.Linear(4, 3), torch.ones(1, 4))
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(copy.deepcopy(tiny_ghn), find_unused_parameters=True)
        for _ in range(2):  # the second pass fails if the first has left gradients out
            for net in (wrapped, tiny_ghn):
                ((params, _),) = net([graph])
                sum(values.square().sum() for values in params.values()).backward()
    finally:
        dist.destroy_process_group()
    for name, weight in tiny_ghn.named_parameters():
        reduced = wrapped.module.get_parameter(name).grad
        assert weight.grad is None or torch.equal(weight.grad, reduced), name
