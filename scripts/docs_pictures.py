"""Make the pictures of the documentation: a traced graph, and a comparison's report as a browser shows it.

    python scripts/docs_pictures.py

Takes a few minutes: the report is that of the default comparison. The screenshot needs chromium on the path.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone works without installation

from ghn.finetune.compare import compare
from ghn.finetune.config import CompareConfig
from ghn.graph.draw import draw
from ghn.models import load_model
from ghn.tracing.trace import trace

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
MODEL = "timm:test_vit"
WIDTH, HEIGHT = 1000, 900
"""Size of the browser's window, in pixels."""


def graph_picture(path: Path) -> None:
    """Draw a vision transformer of one block."""
    draw(trace(load_model(MODEL, depth=1, device="meta")), path, title=MODEL)


def report_picture(path: Path) -> None:
    """Run the default comparison and take a picture of its page."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("the picture of the report needs chromium on the path")
    with tempfile.TemporaryDirectory() as folder:
        compare(CompareConfig(output_dir=f"{folder}/run"))
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={path}"]
        page = f"file://{folder}/run/report.html"
        subprocess.run([browser, *options, page], check=True, capture_output=True)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    graph_picture(IMAGES / "graph.png")
    report_picture(IMAGES / "report.png")
