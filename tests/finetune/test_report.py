"""The page and table of a comparison: what a reader finds there, by the structure of the page."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from ghn.base import default_rules
from ghn.finetune.compare import compare
from ghn.finetune.config import CompareConfig
from ghn.finetune.report import summary_table, table
from ghn.finetune.results import Results


class Page(HTMLParser):
    """Elements of a page: tables as lists of rows of cells, links, pictures, meta names, headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.metas: dict[str, str] = {}
        self.headings: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag in ("h1", "h2"):
            self.headings.append("")
        elif tag == "a":
            self.links.append(values["href"])
        elif tag == "img":
            self.pictures.append(values["src"])
        elif tag == "meta" and "name" in values:
            self.metas[values["name"]] = values["content"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, text):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += text
        elif self.open and self.open[-1] in ("h1", "h2"):
            self.headings[-1] += text


@pytest.fixture(scope="module")
def default_run(tmp_path_factory) -> Results:
    """Every default, but for a budget of three steps; what it leaves open is chosen."""
    folder = tmp_path_factory.mktemp("report") / "out"
    budget = {"steps": 3, "batch_size": 8, "eval_samples": 16, "device": "cpu"}
    return compare(CompareConfig(seeds=(0, 1), lr=(1e-3,), output_dir=str(folder), **budget))


def read(results: Results) -> Page:
    page = Page((Path(results.output_dir) / "report.html").read_text())
    assert not page.open
    return page


def test_the_page_has_settings_as_they_were_resolved(default_run):
    page = read(default_run)
    assert page.headings[1:] == ["Files", "Settings", "Provenance"]
    settings = dict(page.tables[1])
    assert settings["model"] == "timm:test_vit"
    assert settings["dataset"] == "digits"
    assert settings["image_size"] == "32"
    assert settings["checkpoint"] == "ghn-slots"
    assert (settings["steps"], settings["eval_every"], settings["eval_samples"]) == ("3", "1", "16")
    assert not {"None", "null", ""} & set(settings.values())
    assert "tokenizer" not in settings
    assert "commit" in dict(page.tables[2])


def test_accuracies_are_percentages_in_table_and_page(default_run):
    cells = {row[0]: row[2] for row in summary_table(default_run).rows}
    for arm, entry in default_run.summary().items():
        assert cells[arm] == f"{100 * entry['metric_mean']:.1f} ± {100 * entry['metric_sem']:.1f}"
    head, *body = read(default_run).tables[0]
    assert head[2] == "accuracy, %"
    assert {row[0]: row[2] for row in body} == cells


def test_bits_per_byte_are_positive(tiny_text):
    results = compare(tiny_text(steps=1))
    entry = results.summary()["random"]
    assert summary_table(results).rows[0][2] == f"{-entry['metric_mean']:.3f}"
    assert dict(read(results).tables[1])["tokenizer"] == "bytes"


def test_the_page_leads_to_the_raw_files_and_needs_nothing_else(default_run):
    page = read(default_run)
    assert page.links == ["results.json", "curves.csv", "curves.png"]
    assert all((Path(default_run.output_dir) / name).is_file() for name in page.links)
    assert [picture.partition(",")[0] for picture in page.pictures] == ["data:image/png;base64"]
    assert "width=device-width" in page.metas["viewport"]


def test_the_page_says_how_much_of_the_start_is_learned_and_by_which_rules_it_is_made(default_run):
    text = (Path(default_run.output_dir) / "report.html").read_text()
    (note,) = re.findall(
        r"<p>ghn: 80 predicted, 0 tied, 0 kept; \d+\.\d% of the start is learned \(from vit, .*?\); "
        r"tensors by rule: (.*)</p>",
        text,
    )
    counts = dict(re.findall(r"(\w+) \((\d+)\)", note))
    assert {"fan_in", "patch_positions"} <= set(counts) <= set(default_rules().names)
    assert sum(map(int, counts.values())) == 80


def test_the_table_fits_80_columns(default_run):
    console = Console(width=80, file=io.StringIO())
    console.print(table(default_run))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("accuracy, %" in line for line in lines)
    assert not any("…" in line for line in lines)
