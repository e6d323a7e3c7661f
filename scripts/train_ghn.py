"""Meta-train a hypernetwork on text or images; run again with the same arguments to go on after an interruption.

    python scripts/train_ghn.py runs/mine --text DIR
    accelerate launch --multi_gpu scripts/train_ghn.py runs/mine --text DIR --scale full --precision bf16 \\
        --steps 20000 --targets-per-step 16 --max-seconds 3000

checkpoints/ghn-small/README.md says how the shipped checkpoint was made and what it reached.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without installation

from ghn.cli import app
from ghn.console import run_app

if __name__ == "__main__":
    run_app(app, ["train", *sys.argv[1:]])
