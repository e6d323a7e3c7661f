"""What is made from other files for the documentation is up to date, and citations of the lab log lead somewhere."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from typer.main import get_command

from ghn.cli import app

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("docs_pages")


def test_the_index_of_the_lab_log_is_up_to_date(pages: ModuleType) -> None:
    assert (pages.LOG / "README.md").read_text() == pages.log_index(), "run: python scripts/docs_pages.py"


def test_the_page_of_base_rules_is_up_to_date(pages: ModuleType) -> None:
    page = (pages.DOCS / "base-rules.md").read_text()
    assert page == pages.base_rules(), "run: python scripts/docs_pages.py"
    assert page.count("```math") == page.count("```") / 2 > 20
    assert ".. math" not in page and ":math:" not in page and "``" not in page.replace("```", "")


def test_entries_of_the_lab_log_are_listed_newest_first(pages: ModuleType) -> None:
    found = pages.entries()
    assert len(found) >= 96
    assert [entry.date for entry in found] == sorted((entry.date for entry in found), reverse=True)
    missing = [entry.name for entry in found if entry.results and not (ROOT / entry.results).exists()]
    assert not missing


def test_entries_of_the_lab_log_are_short(pages: ModuleType) -> None:
    texts = {entry.name: (pages.LOG / f"{entry.name}.md").read_text() for entry in pages.entries()}
    lengths = {name: len(text.split("---\n", 2)[2].strip().splitlines()) for name, text in texts.items()}
    assert not [name for name, length in lengths.items() if length > 25]


def test_an_entry_without_a_verdict_is_refused(pages: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "new.md").write_text("---\ndate: 2026-12-01\nnumber: 1\nquestion: Why?\n---\n\n# Why\n")
    with pytest.raises(ValueError, match="begins with no 'verdict'"):
        pages.entries(tmp_path)


def test_citations_of_the_lab_log_lead_to_an_entry(pages: ModuleType) -> None:
    sources = [
        path
        for folder in ("ghn", "scripts", "benchmarks", "checkpoints")
        for path in (ROOT / folder).rglob("*")
    ]
    texts = [path.read_text() for path in [*sources, ROOT / "README.md"] if path.suffix in (".py", ".md")]
    cited = {name for text in texts for name in re.findall(r"docs/log/([\w-]+)\.md", text)}
    assert cited
    assert cited <= {entry.name for entry in pages.entries()} | {"README"}


def test_equations_are_drawn_on_the_site(pages: ModuleType) -> None:
    markdown = (pages.DOCS / "base-rules.md").read_text()
    page = SimpleNamespace(file=SimpleNamespace(src_uri="base-rules.md"))
    site = pages.on_page_markdown(markdown, page)
    assert site.count("<svg") == markdown.count("```math")
    assert "```math" not in site


def test_the_page_of_commands_shows_every_command(pages: ModuleType) -> None:
    page = pages.command_line()
    assert re.findall(r"^## ghn (\w+)$", page, re.MULTILINE) == list(get_command(app).commands)
    assert page.count("--help") >= len(get_command(app).commands)


def test_links_between_docs_and_the_rest_of_the_repository_lead_somewhere_on_the_site(
    pages: ModuleType,
) -> None:
    def led(text: str, name: str) -> str:
        return pages.on_page_markdown(text, SimpleNamespace(file=SimpleNamespace(src_uri=name)))

    assert led("[a](../CONTRIBUTING.md)", "extending.md") == "[a](repository/CONTRIBUTING.md)"
    assert led("[a](../extending.md)", "how-it-works/base.md") == "[a](../extending.md)"
    assert led("[a](docs/extending.md)", "repository/CONTRIBUTING.md") == "[a](../extending.md)"


def test_what_copied_pages_lead_to_is_copied_too(pages: ModuleType) -> None:
    copied = pages.files_to_copy()
    assert {"CONTRIBUTING.md", "benchmarks/results/supernet/text-from-base.png"} <= copied
    assert not [name for name in copied if not (ROOT / name).is_file()]
