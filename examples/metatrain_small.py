"""Train a small hypernetwork on texts, and initialize a language model with it.

    python examples/metatrain_small.py

20 updates show how it works; they are far too few to learn anything that lasts.
"""

import json
import subprocess
import sys
from pathlib import Path

import ghn

RUN = Path("metatrained")


def main() -> None:
    """Train by the command line, as one would; then use the checkpoint."""
    command = [sys.executable, "-m", "ghn", "train", str(RUN), "--text", "python-stdlib"]
    subprocess.run([*command, "--updates", "20", "--networks", "8", "--sequence-length", "32"], check=True)
    rows = [json.loads(line) for line in (RUN / "log.jsonl").read_text().splitlines()]
    bits = ", ".join(f"{family} {-metric:.2f}" for family, metric in rows[-1]["validation"].items())
    print(f"{rows[-1]['seen']} target-sequences; bits per byte before training: {bits}")

    net = ghn.GHN.from_pretrained(RUN / "checkpoint")
    model = ghn.load_model("hf:gpt2", vocab_size=384, n_positions=64, n_layer=2, n_embd=64, n_head=2)
    print(net.init_(model))


if __name__ == "__main__":
    main()
