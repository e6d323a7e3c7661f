"""Train the slots of a hypernetwork; run again with the same arguments to go on.

python scripts/train_supernet.py runs/images --images uoft-cs/cifar10 --updates 100000 --max-seconds 9000
python scripts/train_supernet.py runs/text --text DIR --rank 32 --start runs/earlier/tables.safetensors
python scripts/train_supernet.py --export checkpoints/mine runs/images/tables.safetensors runs/text/tables.safetensors
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without installation

from ghn.console import one_line_errors
from ghn.metatrain.supernet import SupernetConfig, hypernetwork, load_tables, merge, train_supernet


def main(arguments: list[str]) -> None:
    """Parse the command line, and train or export."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=Path, help="the run's folder; with --export, tables of runs")
    parser.add_argument(
        "--export", type=Path, metavar="DIR", help="write a checkpoint of the tables of all runs given"
    )
    parser.add_argument(
        "--start", type=Path, metavar="PATH", help="tables of a run, or a checkpoint, to begin with"
    )
    parser.add_argument(
        "--max-seconds", type=float, default=float("inf"), help="save and stop after about this long"
    )
    for entry in fields(SupernetConfig):
        parser.add_argument(
            f"--{entry.name.replace('_', '-')}", type=type(entry.default), default=entry.default
        )
    given = vars(parser.parse_args(arguments))
    paths, export, start, seconds = (given.pop(name) for name in ("paths", "export", "start", "max_seconds"))
    with one_line_errors():
        if export is not None:
            hypernetwork(merge([load_tables(path) for path in paths])).save_pretrained(export)
        else:
            train_supernet(SupernetConfig(**given), paths[0], seconds, start)


if __name__ == "__main__":
    main(sys.argv[1:])
