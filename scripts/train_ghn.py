"""Meta-train a hypernetwork on images or text; run again with the same arguments to go on after an interruption.

    python scripts/train_ghn.py runs/images --images uoft-cs/cifar10 --updates 40000 --max-seconds 9000
    torchrun --standalone --nproc-per-node=2 scripts/train_ghn.py runs/text --text DIR --targets 4
    ghn merge runs/images runs/text --out runs/both

docs/log says what came of trainings so far.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without installation

from ghn.cli import app
from ghn.console import run_app

if __name__ == "__main__":
    run_app(app, ["train", *sys.argv[1:]])
