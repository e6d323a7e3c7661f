"""GPT-2 with transformers' Trainer: one line between construction and training.

python examples/gpt2_trainer.py
"""

import sysconfig
import tempfile
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import ghn

LENGTH = 64


def examples() -> list[dict[str, torch.Tensor]]:
    """Pieces of Python's standard library, byte by byte."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:20]
    data = torch.frombuffer(
        bytearray(b"".join(path.read_bytes() for path in files)), dtype=torch.uint8
    ).long()
    pieces = data[: len(data) // LENGTH * LENGTH].view(-1, LENGTH)
    return [{"input_ids": piece, "labels": piece} for piece in pieces]


def main() -> None:
    """Construct, initialize, train."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=256, n_positions=LENGTH, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config)
    print(ghn.init_(model))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=60,
            per_device_train_batch_size=16,
            learning_rate=1e-3,
            logging_steps=20,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
        )
        result = Trainer(model=model, args=arguments, train_dataset=examples()).train()
    print(f"mean training loss: {result.training_loss:.2f} nats per byte")


if __name__ == "__main__":
    main()
