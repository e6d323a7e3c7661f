"""Which parameters of an initialization help and which hurt: replace those of one role by another initialization's.

    python scripts/swap_kinds.py base random
    python scripts/swap_kinds.py base random --model timm:vit_tiny_patch16_224 --model-kwargs '{"patch_size": 4}' \\
        --dataset uoft-cs/cifar10 --role linear --role norm_weight --steps 500

Trains the first initialization, the second, and the first with the parameters of each role in turn taken from the
second. An arm that ends higher than the first says that the first has that role wrong.
"""

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without installation

import torch
import typer
from torch import nn

from ghn.arms import ARMS, Arm, ArmSettings
from ghn.console import run_command
from ghn.errors import ConfigError, did_you_mean
from ghn.finetune.choose import make_task
from ghn.finetune.compare import compare
from ghn.finetune.config import GROUPS, CompareConfig
from ghn.finetune.options import METAVARS, compare_settings
from ghn.finetune.report import show
from ghn.options import with_options
from ghn.tracing.trace import trace


def swap_role(first: str, second: str, role: str) -> Arm:
    """The arm ``first`` with the parameters of a role from the arm ``second``."""

    @torch.no_grad()
    def arm(model: nn.Module, settings: ArmSettings) -> str:
        twin = copy.deepcopy(model)
        specs = [spec for spec in trace(model, settings.inputs).params if spec.role == role]
        for name, target in ((first, model), (second, twin)):
            ARMS[name](target, settings)
        targets, sources = dict(model.named_parameters()), dict(twin.named_parameters())
        for spec in specs:
            targets[spec.name].copy_(sources[spec.name])
        return f"{len(specs)} parameters of role {role} as in {second}"

    return arm


@with_options(*GROUPS, CompareConfig, without={"inits"}, metavars=METAVARS)
def swap(
    first: Annotated[str, typer.Argument(metavar="FIRST", help=f"One of {', '.join(ARMS)}.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="Where swapped parameters come from.")],
    roles: Annotated[
        list[str] | None, typer.Option("--role", metavar="ROLE …", help="To swap; all there are by default.")
    ] = None,
    **options: Any,
) -> None:
    """Swap the parameters of one role at a time between two initializations, and train each mixture."""
    settings = compare_settings(options)
    task = make_task(CompareConfig(inits=(first, second), **settings))
    choices = dict.fromkeys(spec.role for spec in trace(task.build(0), task.example()).params)
    for role in roles or ():
        if role not in choices:
            raise ConfigError(
                f"{task.model} has no parameters of role {role!r}; it has {', '.join(choices)}."
                f"{did_you_mean(role, choices)}"
            )
    mixtures = {f"{first}, {role} of {second}": swap_role(first, second, role) for role in roles or choices}
    ARMS.update(mixtures)
    show(compare(CompareConfig(inits=(first, second, *mixtures), **settings)))


def main(arguments: Sequence[str]) -> None:
    """Run the command as a program."""
    run_command(swap, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
