"""Meta-train a hypernetwork on images and text; run again with the same arguments to go on after an interruption.

The shipped checkpoint was made by:  python scripts/train_ghn.py runs/ghn-small --images uoft-cs/cifar10 --text DIR
(see scripts/LOG.md for the data and what it reached).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without installation

from ghn.cli import app
from ghn.console import run_app

if __name__ == "__main__":
    run_app(app, ["train", *sys.argv[1:]])
