"""The commands, run in this process (a fresh one only where start-up time or signals are the point)."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ghn import GHN, GHNConfig, cli
from ghn.decoder import DecoderConfig
from ghn.encoder import EncoderConfig
from ghn.models import load_model

OWN_MODEL = """
import torch
from torch import nn

class TwoInputs(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.image, self.text, self.head = nn.Linear(4, width), nn.Embedding(10, width), nn.Linear(width, 2)
        self.unused = nn.Parameter(torch.zeros(3))

    def forward(self, image, tokens):
        return self.head(self.image(image) + self.text(tokens))

def example():
    return torch.rand(2, 4), torch.tensor([1, 2])
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ghn(monkeypatch, capsys) -> Run:
    """Run the command line: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ghn", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    config = GHNConfig(
        encoder=EncoderConfig(hidden=16, layers=1, heads=2), decoder=DecoderConfig(hidden=16, rank=4)
    )
    GHN(config).save_pretrained(folder)
    return folder


@pytest.fixture
def own_model(tmp_path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN_MODEL)
    return path


def test_list_takes_parts_of_names_and_patterns(ghn):
    code, out, _ = ghn("list", "vit_tiny", "--zoo", "timm")
    assert code == 0
    assert "timm:vit_tiny_patch16_224" in out.splitlines()
    assert ghn("list", "vgg1?", "--zoo", "torchvision")[1].split() == [
        f"torchvision:vgg{depth}" for depth in (11, 13, 16, 19)
    ]


def test_list_suggests_when_nothing_matches(ghn):
    code, out, err = ghn("list", "resnett18", "--zoo", "torchvision")
    assert (code, out) == (2, "")
    assert "Did you mean 'resnet18'" in err


def test_graph_prints_what_was_found(ghn):
    code, out, _ = ghn("graph", "timm:test_resnet", "--model-kwargs", '{"num_classes": 7}')
    assert code == 0
    model = load_model("timm:test_resnet", num_classes=7)
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in out
    assert re.search(r"\d+ nodes, \d+ edges, depth \d+, coverage 100.0%, traced in \d+\.\d+ s", out)
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in model.modules())
    assert re.search(rf"conv +{convolutions} ", out)


def test_graph_says_which_parameters_are_not_used_and_why(ghn, own_model):
    code, out, _ = ghn("graph", f"python:{own_model}:TwoInputs", "--inputs", f"{own_model}:example")
    assert code == 0
    assert re.search(r"not used: unused \(3,\): \w+", out)


def test_graph_writes_json_and_a_drawing(ghn, tmp_path):
    code, out, _ = ghn("graph", "timm:test_vit", "--json", tmp_path / "g.json", "--image", tmp_path / "g.svg")
    assert code == 0
    assert out.count("wrote") == 2
    values = json.loads((tmp_path / "g.json").read_text())
    names = {name for spec in values["params"] for name in spec["names"]}
    assert names == dict(load_model("timm:test_vit").named_parameters(remove_duplicate=False)).keys()
    assert (tmp_path / "g.svg").read_text().startswith("<?xml")


def test_predict_writes_what_init_gives(ghn, checkpoint, tmp_path):
    out = tmp_path / "out.safetensors"
    arguments = ("predict", "timm:test_resnet", "--checkpoint", checkpoint, "--out", out, "--seed", 3)
    code, text, _ = ghn(*arguments)
    assert code == 0
    torch.manual_seed(3)
    model = load_model("timm:test_resnet")
    GHN.from_pretrained(checkpoint).init_(model, seed=3)
    written = load_file(out)
    assert written.keys() == model.state_dict().keys()
    assert all(torch.equal(written[name], value) for name, value in model.state_dict().items())
    assert "BatchNorm layers have uncalibrated running statistics" in text
    assert f"timm.create_model('test_resnet', checkpoint_path={str(out)!r})" in text


def test_predict_explains_itself_and_follows_rules(ghn, checkpoint, tmp_path):
    own, out, report = tmp_path / "own.py", tmp_path / "out.safetensors", tmp_path / "report.json"
    own.write_text(
        "from ghn.base import Init, Rule\n"
        "class FlatHeads(Rule):\n"
        "    roles = frozenset({'linear'})\n"
        "    def applies(self, p): return p.feeds_outputs\n"
        "    def init(self, p): return Init(distribution='constant')\n"
    )
    arguments = (
        "predict",
        "timm:test_vit",
        "--checkpoint",
        checkpoint,
        "--out",
        out,
        "--explain",
        "--json",
        report,
    )
    code, printed, _ = ghn(
        *arguments, "--rules", f"{own}:FlatHeads", "--without", "patch_positions", "residual_damping"
    )
    assert code == 0
    rows = {row[0]: row[1:] for row in map(str.split, printed.splitlines()) if len(row) > 2}
    assert rows["head.weight"] == ["1000×64", "flat_heads", "0", "0"]
    assert rows["blocks.0.norm1.weight"] == ["64", "unit_multiplier", "1", "0"]
    entries = {entry["name"]: entry for entry in json.loads(report.read_text())["parameters"]}
    assert (
        entries["head.weight"]["rule"] == "flat_heads" and entries["pos_embed"]["rule"] == "token_positions"
    )
    assert not load_file(out)["head.weight"].any()


def test_predict_is_reproducible_even_for_what_is_kept(ghn, checkpoint, own_model, tmp_path):
    states = []
    for name in ("one.safetensors", "two.safetensors"):
        code, _, err = ghn(
            *("predict", f"python:{own_model}:TwoInputs", "--inputs", f"{own_model}:example"),
            *("--checkpoint", checkpoint, "--out", tmp_path / name, "--dtype", "bfloat16"),
        )
        assert (code, err) == (0, "")
        states.append(load_file(tmp_path / name))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert {value.dtype for value in states[0].values()} == {torch.bfloat16}


def test_predict_writes_a_folder_for_transformers(ghn, checkpoint, tmp_path):
    from transformers import AutoModelForCausalLM

    kwargs = json.dumps({"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 50, "n_positions": 32})
    code, text, _ = ghn(
        *("predict", "hf:gpt2:AutoModelForCausalLM", "--model-kwargs", kwargs, "--dtype", "float16"),
        *("--checkpoint", checkpoint, "--out", tmp_path / "gpt2"),
    )
    assert code == 0
    assert "transformers.AutoModelForCausalLM.from_pretrained" in text
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "gpt2").dtype == torch.float16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("graph", "timm:resnet81"), "timm has no model 'resnet81'. Did you mean 'resnet18'"),
        (("graph", "resnet18"), "names no zoo; write ZOO:NAME"),
        (("graph", "timm:test_vit", "--model-kwargs", "{num_classes: 3}"), "is not JSON"),
        (("graph", "timm:test_vit", "--model-kwargs", "[3]"), """is list; expected names with values"""),
        (("graph", "timm:test_vit", "--model-kwargs", '{"classes": 3}'), "Did you mean 'num_classes'"),
        (("graph", "timm:test_vit", "--model-kwargs", '{"device": "cpu"}'), "the command sets it"),
        (("graph", "timm:test_vit", "--image", "graph.jpg"), "end its name with .png"),
        (("graph", "timm:test_vit", "--json", "no/such/g.json"), "make it with: mkdir -p no/such"),
        (("graph", "python:torch.nn:Identity"), "pass --inputs FILE.py:FUNCTION"),
        (("graph", "timm:test_vit", "--inputs", "nothing.py:f"), "There is no file 'nothing.py'"),
        (("predict", "timm:test_vit", "--out", "x.bin"), "doesn't end with .safetensors"),
        (
            ("predict", "timm:test_vit", "--out", "x.safetensors", "--checkpoint", "no/such/one"),
            "no checkpoint",
        ),
        (("predict", "timm:test_vit", "--out", "x.safetensors", "--dtype", "float8"), "--dtype"),
        (("predict", "timm:test_vit", "--out", "x.safetensors", "--seed", 2**70), "--seed"),
        (("predict", "timm:test_vit"), "Missing option '--out'"),
        (
            ("graph", "python:torch.nn:Identity", "--inputs", "math:sqrt"),
            "'math:sqrt' can't make example inputs",
        ),
        (("list", "--zoo", "tim"), "Unknown zoo 'tim'"),
        (("graph", "timm:test_vit", "--json-file", "x"), "No such option"),
        (("lst",), "No such command 'lst'"),
    ],
)
def test_bad_input_is_one_line_with_exit_code_2(ghn, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = ghn(*arguments)
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "pickle", "newer", "nan"])
def test_bad_checkpoints_are_refused_and_nothing_is_written(ghn, damage, checkpoint, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    config = json.loads((checkpoint / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "version": 99} if damage == "newer" else config)
    )
    weights = (checkpoint / "model.safetensors").read_bytes()
    if damage == "nan":
        net = GHN.from_pretrained(checkpoint)
        with torch.no_grad():
            next(net.decoder.parameters()).fill_(float("nan"))
        net.save_pretrained(folder)
    elif damage == "pickle":
        torch.save({}, folder / "model.pt")
    else:
        (folder / "model.safetensors").write_bytes(weights[:-100] if damage == "truncated" else weights)
    code, _, err = ghn(
        "predict", "timm:test_vit", "--checkpoint", folder, "--out", tmp_path / "out.safetensors"
    )
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1
    expected = {"truncated": "truncated", "pickle": "pickle", "newer": "newer", "nan": "not finite"}
    assert expected[damage] in err
    assert [child.name for child in tmp_path.iterdir()] == ["damaged"]


def test_an_existing_file_stays_without_overwrite(ghn, checkpoint, tmp_path):
    out = tmp_path / "out.safetensors"
    out.write_text("precious")
    arguments = ("predict", "timm:test_vit", "--checkpoint", checkpoint, "--out", out)
    code, _, err = ghn(*arguments)
    assert code == 2 and "--overwrite" in err and out.read_text() == "precious"
    assert ghn(*arguments, "--overwrite")[0] == 0
    assert load_file(out)


def test_env_names_versions_and_machine(ghn):
    code, out, _ = ghn("env")
    assert code == 0
    for name in (
        "ghn",
        "python",
        "torch",
        "transformers",
        "device",
        "memory",
        "cores",
        "shipped checkpoints",
    ):
        assert re.search(rf"^{name}: \S", out, re.MULTILINE), name


def test_help_is_quick_and_lists_every_command(ghn):
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "ghn", "--help"], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    for command in ("list", "graph", "predict", "train", "compare", "env"):
        assert re.search(rf"\b{command}\b", done.stdout)
        assert ghn(command, "--help")[0] == 0
    assert seconds < 3  # 0.4 s alone on one core; importing torch would take longer
    loaded = (
        "import sys, ghn.cli; print([m for m in ('torch', 'matplotlib', 'transformers') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", loaded], text=True) == "[]\n"


def test_compare_takes_lists_as_the_script_does(ghn, tmp_path):
    code, out, err = ghn(
        *("compare", "--model", "timm:test_resnet", "--dataset", "digits", "--inits", "random", "orthogonal"),
        *("--seeds", 0, 1, "--lr", "1e-3", "--steps", 2, "--batch-size", 8, "--eval-samples", 16),
        *("--output-dir", tmp_path / "out", "--device", "cpu"),
    )
    assert code == 0, err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {(run["init"], run["seed"]) for run in results["runs"]} == {
        (init, seed) for init in ("random", "orthogonal") for seed in (0, 1)
    }
    assert str(tmp_path / "out") in out.replace("\n", "")


def test_train_leaves_a_checkpoint_that_predict_takes(ghn, tmp_path):
    space = f"{Path(__file__).parent / 'metatrain' / 'tiny_space.py'}:TinySpace"
    train = ("train", tmp_path / "run", "--images", "digits", "--image-size", 8, "--space", space)
    train = (*train, "--networks", 2, "--validation-networks", 1, "--updates", 2)
    code, _, err = ghn(*train, "--max-seconds", 0)
    assert code == 0 and "1 of 2 updates are done; run again to go on" in err
    code, _, err = ghn(*train)
    assert code == 0 and "run again" not in err and "after 0.00 M target-images: " in err
    out = tmp_path / "out.safetensors"
    assert (
        ghn("predict", "timm:test_vit", "--checkpoint", tmp_path / "run" / "checkpoint", "--out", out)[0] == 0
    )


def test_train_refuses_to_learn_from_nothing(ghn, tmp_path):
    code, _, err = ghn("train", tmp_path / "run")
    assert code == 2
    assert "nothing to learn from" in err
    assert not (tmp_path / "run").exists()
