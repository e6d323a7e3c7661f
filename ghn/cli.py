"""The command line ``ghn``: thin over the library. Commands import what they need, so that ``--help`` is quick."""

import json
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ghn.console import json_object, run_app, working
from ghn.errors import ConfigError, ModelError, OutputError, did_you_mean
from ghn.files import write_whole
from ghn.finetune.options import compare_command
from ghn.metatrain.options import merge_command, train_command

if TYPE_CHECKING:
    from torch import nn

    from ghn.graph.graph import ComputationGraph

app = typer.Typer(
    help="Graph hypernetworks: initialize any PyTorch model with predicted weights.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Spec = Annotated[
    str,
    typer.Argument(
        metavar="SPEC",
        help="timm:NAME, torchvision:NAME, hf:TYPE (or a hub id, folder, config.json), or python:FILE.py:FACTORY.",
    ),
]
ModelKwargs = Annotated[
    str | None,
    typer.Option(metavar="JSON", help="""Arguments of the model, like '{"num_classes": 10}'."""),
]
Inputs = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:FUNCTION",
        help="What returns example inputs; needed for python: models, found automatically for others.",
    ),
]


class DType(StrEnum):
    """What weights are written as."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class HowMuch(StrEnum):
    """How much of what was learned is taken."""

    AUTO = "auto"
    ALL = "all"
    EARLY = "early"
    NONE = "none"


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit code 2."""
    run_app(app, sys.argv[1:])


def _version(value: bool) -> None:
    if value:
        from ghn import __version__

        print(f"ghn {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _app(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        context.get_help()


@app.command("list")
def list_(
    pattern: Annotated[
        str | None, typer.Argument(help="Part of the name, or a shell pattern such as 'vit_*_224'.")
    ] = None,
    zoo: Annotated[str | None, typer.Option(help="timm, torchvision or hf; all of them by default.")] = None,
) -> None:
    """List the architectures that can be named."""
    from ghn.models import list_models

    wildcard = pattern is not None and any(sign in pattern for sign in "*?[")
    specs = list_models(zoo, pattern if wildcard or pattern is None else f"*{pattern}*")
    if not specs:
        names = [spec.partition(":")[2] for spec in list_models(zoo)]
        raise ModelError(
            f"no architecture of {zoo or 'any zoo'} matches {pattern!r}.{did_you_mean(str(pattern), names)}"
        )
    print("\n".join(specs))


@app.command()
def graph(
    spec: Spec,
    model_kwargs: ModelKwargs = None,
    inputs: Inputs = None,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the graph: .png, .svg, .pdf, .html or .dot.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write nodes, edges and parameters.")
    ] = None,
) -> None:
    """Trace a model and show its computation graph; takes no memory for weights."""
    from ghn.graph.draw import draw, image_path
    from ghn.tracing.trace import trace

    kwargs = json_object(model_kwargs, "--model-kwargs")
    if image is not None:
        image_path(image)
    _check_json(json_file)
    model, example = _load(spec, kwargs, inputs, "meta")
    start = time.perf_counter()
    with working("tracing"):
        graph = trace(model, example)
    _print_graph(spec, type(model).__name__, graph, time.perf_counter() - start)
    if json_file is not None:
        write_whole(json_file, json.dumps(graph.to_dict()), "choose another place")
        print(f"wrote {json_file}")
    if image is not None:
        with working("drawing"):
            draw(graph, image, title=spec)
        print(f"wrote {image}")


@app.command()
def predict(
    spec: Spec,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE|DIR", help="A .safetensors file; for hf: models a folder.", show_default=False
        ),
    ],
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Hypernetwork: folder or hub id. [default: the one that ships with ghn]"),
    ] = None,
    model_kwargs: ModelKwargs = None,
    inputs: Inputs = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Same seed, same weights.")] = 0,
    learned: Annotated[
        HowMuch,
        typer.Option(
            help="How much of what was learned: all (for its data), early (fading with depth), none; auto is all for "
            "language models of its vocabulary, else early."
        ),
    ] = HowMuch.AUTO,
    dtype: Annotated[DType, typer.Option(help="Type of the written weights.")] = DType.FLOAT32,
    device: Annotated[str, typer.Option(help="Where weights are predicted: cpu, cuda, cuda:1 …")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")] = False,
    keep_deliberate: Annotated[
        bool, typer.Option(help="Keep what the owner of a python: model initialized deliberately.")
    ] = True,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print by which rule every parameter starts, and how large.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report of every parameter.")
    ] = None,
    without: Annotated[
        list[str], typer.Option(metavar="RULE …", help="Initialization rules to leave out.")
    ] = [],  # noqa: B006 (typer's own way to say it)
    rules: Annotated[
        list[str],
        typer.Option(metavar="FILE.py:RULE …", help="Your own initialization rules, before all others."),
    ] = [],  # noqa: B006
) -> None:
    """Predict a model's weights and write them as its zoo loads them."""
    import torch

    from ghn.apply.calibrate import batchnorm_layers
    from ghn.apply.export import export_prediction, output_path
    from ghn.apply.materialize import check_target
    from ghn.apply.rules import rule_set
    from ghn.base.predicted import predicted_params
    from ghn.console import bytes_bar
    from ghn.hypernetwork import GHN
    from ghn.tracing.cache import trace_once

    kwargs = json_object(model_kwargs, "--model-kwargs")
    check_target(device, None)
    output_path(spec, out, overwrite)
    _check_json(json_file)
    selection = rule_set(rules, without)
    with working("loading the hypernetwork"):
        net = GHN.from_pretrained(checkpoint).to(device)
    torch.manual_seed(seed)  # what is kept is the model's own random initialization
    own = spec.startswith("python:") and keep_deliberate  # then values say what is to stay
    model, example = _load(spec, kwargs, inputs, "cpu" if own else "meta")
    with working("tracing"):
        graph = trace_once(model, example)
    if not own and len(predicted_params(graph)) < len(graph.params):
        model, example = _load(spec, kwargs, inputs, "cpu")
    with bytes_bar("predicting") as progress:
        path, report = export_prediction(
            net,
            model,
            spec,
            out,
            example,
            seed=seed,
            learned={"auto": True, "none": False}.get(learned, learned.value),  # type: ignore[arg-type]
            dtype=getattr(torch, dtype),
            overwrite=overwrite,
            keep_deliberate=keep_deliberate,
            rules=selection,
            progress=progress,
        )
    print(f"{report}\n\n{report.explain()}\n" if explain else report)
    if layers := batchnorm_layers(model):
        print(
            f"{len(layers)} BatchNorm layers have uncalibrated running statistics (mean 0, variance 1): train, or run "
            "ghn.calibrate_(model, batches), before evaluating"
        )
    if json_file is not None:
        write_whole(json_file, json.dumps(report.to_dict(), indent=1) + "\n", "choose another place")
        print(f"wrote {json_file}")
    print(f"wrote {path}\nload it with: {_how_to_load(spec, model, path, kwargs)}")


app.command("train")(train_command)
app.command("merge")(merge_command)
app.command("compare")(compare_command)


@app.command()
def env() -> None:
    """Print versions and the machine, for bug reports."""
    from ghn.checkpoints import shipped_folders
    from ghn.environment import machine, versions

    checkpoints = ", ".join(folder.name for folder in shipped_folders()) or "none"
    for name, value in {**versions(), **machine(), "shipped checkpoints": checkpoints}.items():
        print(f"{name}: {value}")


def _check_json(path: Path | None) -> None:
    if path is not None and not path.absolute().parent.is_dir():
        raise OutputError(f"there is no folder {path.parent}; make it with: mkdir -p {path.parent}")


def _load(spec: str, kwargs: dict[str, Any], inputs: str | None, device: str) -> tuple["nn.Module", Any]:
    """The model and its example inputs, None where they are found automatically."""
    from ghn.models import load_model
    from ghn.models.python_zoo import call_for_inputs

    with working(f"building {spec}"):
        clash = sorted({"spec", "device"} & kwargs.keys())
        if clash:
            raise ConfigError(f"--model-kwargs can't hold {clash[0]!r}: the command sets it")
        if inputs is None and spec.startswith("python:"):
            raise ConfigError(
                f"nobody knows what {spec} takes; pass --inputs FILE.py:FUNCTION, a function that returns example "
                "inputs (a tensor, a tuple of positional or a dict of keyword arguments)"
            )
        return load_model(spec, device=device, **kwargs), None if inputs is None else call_for_inputs(inputs)


def _print_graph(spec: str, name: str, graph: "ComputationGraph", seconds: float) -> None:
    from ghn.graph.summary import count_roles, depths, unattached

    total = sum(entry.numel for entry in count_roles(graph))
    print(
        f"{spec}: {name}, {total:,} parameters\n"
        f"{len(graph.nodes):,} nodes, {len(graph.edges):,} edges, depth {max(depths(graph), default=0):,}, "
        f"coverage {graph.coverage():.1%}, traced in {seconds:.2f} s"
    )
    table = Table("role", box=None, header_style="bold")
    for column in ("tensors", "parameters", "share"):
        table.add_column(column, justify="right")
    for entry in count_roles(graph):
        table.add_row(
            entry.role, f"{entry.tensors:,}", f"{entry.numel:,}", f"{entry.numel / max(total, 1):.1%}"
        )
    Console().print(table)
    for param in unattached(graph):
        print(f"not used: {param.name} {param.shape}: {param.reason}")
    for note in graph.notes:
        print(f"note: {note}")


def _how_to_load(spec: str, model: "nn.Module", path: Path, kwargs: dict[str, Any]) -> str:
    zoo, _, name = spec.partition(":")
    arguments = "".join(f", {key}={value!r}" for key, value in kwargs.items())
    if zoo == "hf":
        head = name.partition(":")[2] or type(model).__name__
        return f"transformers.{head}.from_pretrained({str(path)!r})"
    if zoo == "timm":
        return f"timm.create_model({name!r}{arguments}, checkpoint_path={str(path)!r})"
    return f"model.load_state_dict(safetensors.torch.load_file({str(path)!r}))"


if __name__ == "__main__":
    main()
