"""The report page in a real browser: its structure as it is laid out, on a phone and on a desk, not its pixels."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from ghn.finetune.page import Table, page, png_of

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium on the path")

MEASURE = """
<script>
const frames = [...document.querySelectorAll("iframe")];
addEventListener("load", () => {
  const found = frames.map(frame => {
    const page = frame.contentDocument, all = selector => [...page.querySelectorAll(selector)];
    return {
      overflow: page.documentElement.scrollWidth - frame.clientWidth,
      headings: all("h1, h2").map(each => each.textContent),
      rows: all("table").map(each => each.rows.length),
      shown: all("table, img, h1, li").every(each => each.getClientRects()[0].height > 0),
      pictures: all("img").map(each => each.naturalWidth),
      first: all("td:first-child").map(each => getComputedStyle(each).textAlign),
      links: all("a").map(each => each.getAttribute("href")),
    };
  });
  document.title = JSON.stringify(found);
});
</script>
"""


def laid_out(text: str, widths: list[int], folder: Path) -> list[dict]:
    """What a browser makes of a page in windows of some widths."""
    frames = [
        f'<iframe width="{width}" height="900" style="border: 0" srcdoc="{html.escape(text)}"></iframe>'
        for width in widths
    ]
    (folder / "frames.html").write_text(f"<!doctype html><title></title>{''.join(frames)}{MEASURE}")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--dump-dom",
        f"--user-data-dir={folder}/profile",
    ]
    done = subprocess.run(
        [str(BROWSER), *options, f"file://{folder}/frames.html"], capture_output=True, text=True, check=True
    )
    (title,) = re.findall("<title>(.*?)</title>", done.stdout, re.DOTALL)
    return list(json.loads(html.unescape(title)))


def test_the_page_fits_a_phone_and_a_desk(tmp_path):
    columns = ("arm", "best lr", "accuracy, %", "loss", "steps to random's final", "init", "train")
    rows = [("ghn", "0.003", "97.0 ± 0.2", "0.1", "80", "0.40 s", "21.0 s"), ("a<b>&c", *["–"] * 6)]
    figure = Figure(figsize=(10, 4))
    text = page(
        "timm:test_vit (300,746 parameters) on digits: 100 steps of 64",
        [Table(columns=columns, rows=rows)],
        remarks=["ghn: 80 predicted; tensors by rule: " + ", ".join(f"rule_{n} ({n})" for n in range(40))],
        pictures={"accuracy": png_of(figure)},
        files={"results.json": "every run"},
        facts={"Settings": {"model": "timm:" + "x" * 200, "seeds": [0, 1], "augment": True, "left_out": []}},
    )
    for found in laid_out(text, [360, 1280], tmp_path):
        assert found["overflow"] <= 0
        assert found["headings"][1:] == ["Files", "Settings"]
        assert found["rows"] == [3, 4] and found["shown"]
        assert found["pictures"] == [1000]
        assert {*found["first"]} == {"left"}
        assert found["links"] == ["results.json"]
    (wide,) = laid_out(text.replace("overflow-x: auto", ""), [360], tmp_path)
    assert wide["overflow"] > 0  # what is measured would show
