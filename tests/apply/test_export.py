"""Exports are loaded by their own zoo in a process that can't import ghn, and compared bit for bit."""

import errno
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ghn.apply import export as export_module
from ghn.apply import tensor_file
from ghn.apply.export import export, export_prediction, output_path
from ghn.apply.tensor_file import TensorFile
from ghn.errors import OutputError
from ghn.models import load_model

TINY_GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 50, "n_positions": 32}

WITHOUT_GHN = """
import sys
sys.modules["ghn"] = None  # import ghn: ImportError
from safetensors.torch import load_file
path, expected = sys.argv[1:]
{load}
state = model.state_dict()
expected = load_file(expected)
assert state.keys() == expected.keys(), state.keys() ^ expected.keys()
different = [name for name in expected if not state[name].equal(expected[name])]
assert not different, different
"""


def _randomize(model: nn.Module) -> nn.Module:
    """Every parameter and buffer unlike any default."""
    generator = torch.Generator().manual_seed(5)
    for tensor in {id(value): value for value in model.state_dict().values()}.values():
        tensor.copy_((torch.rand(tensor.shape, generator=generator) * 9 + 1).to(tensor.dtype))
    return model


def _reload(load: str, path: Path, model: nn.Module, tmp_path: Path) -> None:
    expected = tmp_path / "expected.st"
    save_file({name: value.clone().contiguous() for name, value in model.state_dict().items()}, expected)
    code = WITHOUT_GHN.format(load=load)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(expected)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_timm_loads_the_file(name, tmp_path):
    model = _randomize(load_model(f"timm:{name}", num_classes=7))
    path = export(model, f"timm:{name}", tmp_path / "out.safetensors")
    load = f"import timm; model = timm.create_model({name!r}, num_classes=7, checkpoint_path=path)"
    _reload(load, path, model, tmp_path)


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small"])
def test_torchvision_loads_the_file(name, tmp_path):
    model = _randomize(load_model(f"torchvision:{name}", num_classes=7))
    path = export(model, f"torchvision:{name}", tmp_path / "out.safetensors")
    load = f"""
import torchvision
model = torchvision.models.{name}(num_classes=7)
model.load_state_dict(load_file(path))
"""
    _reload(load, path, model, tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_loads_the_folder(tied, tmp_path):
    model = _randomize(load_model("hf:gpt2:AutoModelForCausalLM", **TINY_GPT2, tie_word_embeddings=tied))
    path = export(model, "hf:gpt2", tmp_path / "out")
    load = """
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(path)
assert (model.lm_head.weight is model.transformer.wte.weight) == model.config.tie_word_embeddings
"""
    _reload(load, path, model, tmp_path)
    assert json.loads((path / "config.json").read_text())["tie_word_embeddings"] is tied
    assert (path / "generation_config.json").is_file()


class _Shared(nn.Module):
    """Twice the same tensor, and a view of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = self.first
        self.register_buffer("view", self.first.weight.detach()[1:])


def test_shared_memory_is_spelled_out_for_strict_loading(tmp_path):
    model = _Shared()
    state = load_file(export(model, "python:pkg:_Shared", tmp_path / "shared.safetensors"))
    assert model.load_state_dict(state).missing_keys == []
    assert torch.equal(state["second.weight"], model.first.weight)
    assert torch.equal(state["view"], model.first.weight[1:])


def test_an_existing_folder_gets_a_file_named_like_the_model(tmp_path):
    assert output_path("timm:hf-hub:org/name", tmp_path) == tmp_path / "hf-hub-org-name.safetensors"


def test_an_empty_folder_and_an_earlier_export_are_replaced(tmp_path):
    model = load_model("hf:gpt2", **TINY_GPT2)
    (tmp_path / "out").mkdir()
    export(model, "hf:gpt2", tmp_path / "out")
    with pytest.raises(OutputError, match="not empty; pass --overwrite"):
        export(model, "hf:gpt2", tmp_path / "out")
    export(_randomize(model), "hf:gpt2", tmp_path / "out", overwrite=True)
    assert [child.name for child in tmp_path.iterdir()] == ["out"]
    saved = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(saved["transformer.wte.weight"], model.transformer.wte.weight)


def test_overwriting_deletes_nothing_but_models(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"more than a model \('thesis.tex'"):
        output_path("hf:gpt2", tmp_path, overwrite=True)


@pytest.mark.parametrize(
    ("spec", "out", "message"),
    [
        ("timm:test_vit", "out.bin", r"doesn't end with \.safetensors.* pass .*out\.safetensors"),
        ("timm:test_vit", "taken.safetensors", "exists; pass --overwrite"),
        ("timm:test_vit", "no/such/out.safetensors", "there is no folder .*no/such; make it with: mkdir -p"),
        ("hf:gpt2", "no/such/out", "there is no folder"),
        ("hf:gpt2", "out.safetensors", "written as a folder; pass .*out"),
        ("hf:gpt2", "taken.safetensors", "written as a folder"),
    ],
)
def test_bad_targets_are_refused_before_work(spec, out, message, tmp_path):
    (tmp_path / "taken.safetensors").write_text("")
    with pytest.raises(OutputError, match=message):
        output_path(spec, tmp_path / out)


def test_no_permission_is_known_early(tmp_path, monkeypatch):
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(export_module.tempfile, "TemporaryFile", refuse)
    with pytest.raises(OutputError, match=r"Permission denied in .*; choose another place"):
        output_path("timm:test_vit", tmp_path / "out.safetensors")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("existing", [True, False])
def test_an_interruption_leaves_the_target_as_it_was(error, existing, tmp_path, monkeypatch):
    path = tmp_path / "out.safetensors"
    if existing:
        path.write_text("earlier")

    def interrupted(file: TensorFile, name: str, values: torch.Tensor) -> None:
        raise error

    monkeypatch.setattr(TensorFile, "write", interrupted)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else OutputError
    with pytest.raises(expected):
        export(nn.Linear(2, 2), "python:m:f", path, overwrite=True)
    assert [child.name for child in tmp_path.iterdir()] == (["out.safetensors"] if existing else [])
    assert not existing or path.read_text() == "earlier"


def test_an_interrupted_folder_leaves_the_earlier_one(tmp_path, monkeypatch):
    model = load_model("hf:gpt2", **TINY_GPT2)
    path = export(model, "hf:gpt2", tmp_path / "out")
    before = {child.name: child.read_bytes() for child in path.iterdir()}

    def interrupted(part: Path) -> None:
        (part / "config.json").write_text("{")
        raise KeyboardInterrupt

    monkeypatch.setattr(type(model.config), "save_pretrained", lambda _, part: interrupted(part))
    with pytest.raises(KeyboardInterrupt):
        export(model, "hf:gpt2", path, overwrite=True)
    assert {child.name: child.read_bytes() for child in path.iterdir()} == before
    assert [child.name for child in tmp_path.iterdir()] == ["out"]


PREDICTED = {
    "timm:test_resnet": ("timm.create_model('test_resnet', checkpoint_path=path)", {}),
    "timm:test_vit": ("timm.create_model('test_vit', checkpoint_path=path)", {}),
    "torchvision:squeezenet1_1": ("torchvision.models.squeezenet1_1()", {}),
    "hf:gpt2:AutoModelForCausalLM": ("transformers.AutoModelForCausalLM.from_pretrained(path)", TINY_GPT2),
    "hf:llama:AutoModelForCausalLM": (
        "transformers.AutoModelForCausalLM.from_pretrained(path)",
        {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "vocab_size": 100,
        },
    ),
    # Leaves its fixed positions out of what it saves.
    "hf:marian:AutoModelForSeq2SeqLM": (
        "transformers.AutoModelForSeq2SeqLM.from_pretrained(path)",
        {
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "vocab_size": 100,
            "pad_token_id": 99,
            "decoder_start_token_id": 99,
            "max_position_embeddings": 64,
        },
    ),
    "hf:vit:AutoModelForImageClassification": (
        "transformers.AutoModelForImageClassification.from_pretrained(path)",
        {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2},
    ),
}


@pytest.mark.parametrize("spec", PREDICTED)
def test_a_prediction_streamed_to_disk_is_the_one_in_memory(tiny_ghn, spec, tmp_path):
    dtype = torch.bfloat16 if spec.startswith(("hf:llama", "timm:test_vit")) else torch.float32
    call, kwargs = PREDICTED[spec]
    model = load_model(spec, **kwargs)
    tiny_ghn.init_(model, seed=3)
    meta = load_model(spec, device="meta", **kwargs)
    seen = []
    path, report = export_prediction(
        tiny_ghn,
        meta,
        spec,
        tmp_path / ("out" if spec.startswith("hf") else "out.safetensors"),
        seed=3,
        dtype=dtype,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert report.count("predicted") > 0
    assert all(p.is_meta == p.requires_grad for p in meta.parameters())
    assert seen[-1][0] == seen[-1][1] == sum(total for _, total in seen) / len(seen)
    rounded = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    if spec.startswith("timm"):
        rounded = {name: value.to(model.state_dict()[name].dtype) for name, value in rounded.items()}
    load = f"import timm, torchvision, transformers\nmodel = {call}"
    if "torchvision" in spec:
        load += "\nmodel.load_state_dict(load_file(path))"
        rounded = {name: value.to(model.state_dict()[name].dtype) for name, value in rounded.items()}
    save_file({name: value.clone().contiguous() for name, value in rounded.items()}, tmp_path / "expected.st")
    code = WITHOUT_GHN.format(load=load)
    arguments = [sys.executable, "-c", code, str(path), str(tmp_path / "expected.st")]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_large_folders_are_cut_and_indexed(tiny_ghn, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "open_folder", partial(tensor_file.open_folder, max_shard_bytes=5000))
    model = load_model("hf:gpt2:AutoModelForCausalLM", device="meta", **TINY_GPT2)
    path, _ = export_prediction(tiny_ghn, model, "hf:gpt2:AutoModelForCausalLM", tmp_path / "out")
    index = json.loads((path / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2
    assert files == sorted(file.name for file in path.glob("*.safetensors"))
    assert "lm_head.weight" not in index["weight_map"]
    whole = load_model("hf:gpt2:AutoModelForCausalLM", **TINY_GPT2)
    tiny_ghn.init_(whole)
    load = "from transformers import AutoModelForCausalLM\nmodel = AutoModelForCausalLM.from_pretrained(path)"
    _reload(load, path, whole, tmp_path)


def test_files_have_the_permissions_that_the_user_set(tiny_ghn, tmp_path):
    before = os.umask(0o027)
    try:
        file = export(nn.Linear(2, 2), "python:a:b", tmp_path / "out.safetensors")
        model = load_model("hf:gpt2", device="meta", **TINY_GPT2)
        folder, _ = export_prediction(tiny_ghn, model, "hf:gpt2", tmp_path / "out")
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o640
    assert folder.stat().st_mode & 0o777 == 0o750
    assert all(child.stat().st_mode & 0o777 == 0o640 for child in folder.iterdir())


@pytest.mark.parametrize("spec", ["hf:gpt2", "python:a:b"])
def test_an_interrupted_export_leaves_nothing(tiny_ghn, tmp_path, spec):
    model = load_model("hf:gpt2", device="meta", **TINY_GPT2)

    def interrupt(done, total):
        parts = [file for file in tmp_path.rglob("*") if file.is_file()]
        for part in (file for file in parts if file.suffix != ".json"):
            with pytest.raises(SafetensorError):
                load_file(part)
        raise KeyboardInterrupt

    out = tmp_path / ("out" if spec.startswith("hf") else "out.safetensors")
    with pytest.raises(KeyboardInterrupt):
        export_prediction(tiny_ghn, model, spec, out, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    assert all(p.is_meta for p in model.parameters())


def test_a_full_disk_is_noticed_before_the_work(tiny_ghn, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ghn.apply.tensor_file.os.posix_fallocate", full)
    model = load_model("hf:gpt2", device="meta", **TINY_GPT2)
    started = []
    with pytest.raises(
        OutputError, match=r"No space left on device, and .* GB are needed\); nothing was left behind"
    ):
        export_prediction(tiny_ghn, model, "hf:gpt2", tmp_path / "out", progress=lambda *_: started.append(1))
    assert list(tmp_path.iterdir()) == []
    assert not started
