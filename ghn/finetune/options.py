"""The command line of a comparison, shared by ``scripts/init_and_finetune.py`` and ``ghn compare``."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, Any

import typer

from ghn.console import json_object, run_app
from ghn.errors import ConfigError
from ghn.finetune.config import OPTIMIZERS, PRECISIONS, CompareConfig

LISTS = ("--inits", "--transfer-inits", "--seeds", "--lr", "--without", "--rules")
"""Options that take several values, as ``--seeds 0 1 2`` or ``--seeds 0 --seeds 1 --seeds 2``."""

_DEFAULTS: dict[str, Any] = {entry.name: entry.default for entry in fields(CompareConfig)}

_INITS, _SEEDS, _LR = (list(_DEFAULTS[name]) for name in ("inits", "seeds", "lr"))


def compare_command(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="timm:NAME, torchvision:NAME, hf:TYPE (or a hub id, folder, config.json) or python:FILE.py:FACTORY; a "
            "small one of the data set's kind by default.",
        ),
    ] = None,
    model_kwargs: Annotated[
        str | None, typer.Option(metavar="JSON", help="""Arguments of the model, like '{"depth": 6}'.""")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="ID|DIR|NAME",
            help="digits or python-stdlib (both offline), a hub id (ID:CONFIGURATION), or a folder; what fits the "
            "model by default.",
        ),
    ] = None,
    inits: Annotated[
        list[str],
        typer.Option(
            metavar="ARM …", help="Arms: ghn, base (the hypernetwork untrained), random, orthogonal, mimetic."
        ),
    ] = _INITS,
    without: Annotated[
        list[str],
        typer.Option(
            metavar="RULE …",
            help="Adds an arm for each of ghn and base that leaves these initialization rules out.",
        ),
    ] = [],  # noqa: B006 (typer's own way to say it)
    rules: Annotated[
        list[str],
        typer.Option(
            metavar="FILE.py:RULE …", help="Your own rules, which ghn and base follow before others."
        ),
    ] = [],  # noqa: B006
    seeds: Annotated[list[int], typer.Option(metavar="N …", help="One run of each arm per seed.")] = _SEEDS,
    lr: Annotated[
        list[float],
        typer.Option(
            metavar="RATE …", help="Grid of peak learning rates; each arm is reported at its own best."
        ),
    ] = _LR,
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="DIR|ID", help="Hypernetwork of the arm ghn; the shipped one by default."),
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Steps per run.  [default: 100]")] = None,
    epochs: Annotated[
        float | None, typer.Option(metavar="N", help="Passes over the training data, in place of --steps.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Examples per step.  [default: 64 images or 16 sequences]")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Pixels; small images keep theirs (32 at least) by default, large get the model's.",
        ),
    ] = None,
    sequence_length: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens a language model reads at once.  [default: 128]")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="ID|DIR|bytes", help="Tokenizer of a language model.  [default: bytes]"),
    ] = None,
    optimizer: Annotated[str, typer.Option(metavar="NAME", help=" or ".join(OPTIMIZERS))] = _DEFAULTS[
        "optimizer"
    ],
    weight_decay: Annotated[
        float, typer.Option(metavar="X", help="Of matrices; vectors have none.")
    ] = _DEFAULTS["weight_decay"],
    warmup: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the steps in which the rate rises.")
    ] = _DEFAULTS["warmup"],
    clip: Annotated[
        float, typer.Option(metavar="NORM", help="Largest norm of the gradient; 0 doesn't clip.")
    ] = _DEFAULTS["clip"],
    precision: Annotated[str, typer.Option(metavar="KIND", help=", ".join(PRECISIONS))] = _DEFAULTS[
        "precision"
    ],
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")] = _DEFAULTS[
        "device"
    ],
    compile: Annotated[bool, typer.Option("--compile", help="Compile the model with torch.compile.")] = False,
    augment: Annotated[bool, typer.Option(help="Shift (and mirror) training images at random.")] = True,
    eval_every: Annotated[
        int | None, typer.Option(metavar="N", help="Steps between evaluations.  [default: a tenth of all]")
    ] = None,
    eval_samples: Annotated[
        int | None,
        typer.Option(metavar="N", help="Examples to evaluate on.  [default: 2000 images or 128 sequences]"),
    ] = None,
    num_workers: Annotated[
        int, typer.Option(metavar="N", help="Processes that decode images which don't fit in memory.")
    ] = _DEFAULTS["num_workers"],
    output_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where results go.  [default: a new folder in runs]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the comparison in --output-dir.")
    ] = False,
) -> None:
    """Fine-tune a model from several initializations under equal conditions, and say which is best.

    Without options: a small vision model on handwritten digits, predicted weights against random ones, a few minutes.
    """
    given = {**locals(), "model_kwargs": json_object(model_kwargs, "--model-kwargs")}
    given["inits"] = [*inits, *_ablations(inits, given.pop("without"))]
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    config = CompareConfig(**values)

    from ghn.finetune.compare import compare
    from ghn.finetune.report import show

    show(compare(config))


def _ablations(inits: Sequence[str], without: Sequence[str]) -> list[str]:
    """Arms like those of a comparison, without some rules."""
    if not without:
        return []
    from ghn.apply.baselines import NEEDS_CHECKPOINT
    from ghn.apply.rules import ablated

    arms = [ablated(arm, without) for arm in inits if arm in NEEDS_CHECKPOINT]
    if not arms:
        raise ConfigError("--without is for the arms ghn and base; name one of them in --inits")
    return arms


def spread_lists(arguments: Sequence[str]) -> list[str]:
    """Rewrite ``--seeds 0 1 2`` as ``--seeds 0 --seeds 1 --seeds 2``, which is what typer reads.

    A list ends at the next option; negative numbers are values.
    """
    found: list[str] = []
    option = None
    first = True
    for argument in arguments:
        if argument.startswith("-") and not _is_number(argument):
            name, given, _ = argument.partition("=")
            option, first = (name if name in LISTS else None), not given
            found.append(argument)
        elif option is None or first:
            found.append(argument)
            first = False
        else:
            found += [option, argument]
    return found


def main(arguments: Sequence[str]) -> None:
    """Run the command as a program: a user's mistake is one line on stderr and exit code 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(compare_command)
    run_app(app, spread_lists(arguments))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
