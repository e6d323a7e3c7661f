"""Compare initializations on your own folder of images, with one folder per class in it.

    python examples/compare_folder.py [FOLDER]

Without a folder it writes 600 handwritten digits as PNG files and takes those.
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

from ghn.finetune.compare import compare
from ghn.finetune.config import CompareConfig
from ghn.finetune.report import show


def write_digits(folder: Path, count: int = 600) -> None:
    """Write digits as ``folder/CLASS/NUMBER.png``."""
    data = load_digits()
    for number in range(count):
        path = folder / str(data.target[number]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((data.images[number] * 15).astype("uint8")).save(path)


def main() -> None:
    """Compare three starts; a real comparison has more steps, three seeds and a grid of learning rates."""
    with tempfile.TemporaryDirectory() as folder:
        images = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "images"
        if len(sys.argv) == 1:
            write_digits(images)
        results = compare(
            CompareConfig(
                model="timm:test_vit",
                dataset=str(images),
                inits=("ghn", "base", "random"),
                seeds=(0,),
                lr=(1e-3,),
                steps=40,
                batch_size=32,
                output_dir="compared",
            )
        )
    show(results)


if __name__ == "__main__":
    main()
