"""Pages of the documentation that are made from other files, so that they can't go stale.

``python scripts/docs_pages.py`` writes the index of the lab log and the page of base rules, which are committed.
``mkdocs`` calls ``on_files`` for what is made at every build and committed nowhere, and ``on_page_markdown`` for links
from pages to other files of the repository.
"""

import ast
import inspect
import io
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
LOG = DOCS / "log"

REPOSITORY = re.compile(r"\]\(\.\./((?:[\w-]+/)*[\w-]+\.\w+)\)")
"""A link from a page of ``docs`` to a file elsewhere in the repository; the site has a copy in ``repository``."""

_LOG_INTRODUCTION = """# Lab log

What was tried, what came of it, and what was decided, newest first. Negative results stay. "Above" and "below" in an
entry mean entries before and after it in time.

A new entry is a file in this folder that begins with `date`, `number` (its place among those of the day), `question`,
`verdict` and, where there are any, `results`; at most 25 lines: setup, result, decision. Then run
`python scripts/docs_pages.py`, which writes this table. Results are in `benchmarks/results`.
"""

_RULES_INTRODUCTION = """# Base rules with evidence

The first rule that applies to a parameter says how it starts; then every modifier that applies changes that. Each rests
on experiments in the lab log. `ghn predict SPEC --explain` says which ones made each parameter of a model;
`ghn compare --without NAME` measures what one is worth; `net.init_(model, rules=default_rules().without(NAME))`
leaves it out (`from ghn.base import default_rules`). A [rule of your own](extending.md) is a class.

Size is σ, the standard deviation of random values, or μ, the value of a constant. This page is made from the docstrings
of `ghn/base/rules` by `python scripts/docs_pages.py`.
"""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An entry of the lab log, as the head of its file describes it."""

    name: str
    date: str
    number: int
    question: str
    verdict: str
    results: str


def entries(folder: Path = LOG) -> list[Entry]:
    """Entries of the lab log, newest first.

    Raises:
        ValueError: If a file begins with no such head, or two entries of a day have one number.
    """
    items = []
    for path in sorted(folder.glob("*.md")):
        if path.name == "README.md":
            continue
        _, head, _ = path.read_text().split("---\n", 2)
        values = yaml.safe_load(head)
        try:
            items.append(
                Entry(
                    name=path.stem,
                    date=str(values["date"]),
                    number=int(values["number"]),
                    question=values["question"],
                    verdict=values["verdict"],
                    results=values.get("results", ""),
                )
            )
        except KeyError as error:
            raise ValueError(f"{path} begins with no {error}; see docs/log/README.md") from error
    if len({(entry.date, entry.number) for entry in items}) < len(items):
        raise ValueError("two entries of the lab log have the same date and number")
    return sorted(items, key=lambda entry: (entry.date, entry.number), reverse=True)


def log_index(folder: Path = LOG) -> str:
    """The page that lists all entries of the lab log."""
    lines = [_LOG_INTRODUCTION, "| date | question | verdict | results |", "|---|---|---|---|"]
    for entry in entries(folder):
        results = f"`{entry.results.removeprefix('benchmarks/results/')}`" if entry.results else "–"
        lines.append(f"| {entry.date} | [{entry.question}]({entry.name}.md) | {entry.verdict} | {results} |")
    return "\n".join(lines) + "\n"


def command_line() -> str:
    """The page of all commands, as ``--help`` shows them."""
    from typer.main import get_command

    from ghn.cli import app

    lines = ["# Command line", "", "Errors are one line with the fix, and exit code 2.", ""]
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        help_text = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "ghn", name, "--help"],
            env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        text = help_text.replace("python -m ghn", "ghn").strip()
        lines += [f"## ghn {name}", "", "```text", text, "```", ""]
    return "\n".join(lines)


def base_rules() -> str:
    """The page of all rules and modifiers of the base in their order, from their docstrings."""
    from ghn.base import default_rules

    rules = default_rules()
    lines = [_RULES_INTRODUCTION]
    for title, entries_of in (("Rules", rules.rules), ("Modifiers", rules.modifiers)):
        lines += [f"## {title}", ""]
        for entry in entries_of:
            texts = _field_docstrings(type(entry))
            constants = [f"- `{name} = {value:.4g}`: {texts[name]}" for name, value in vars(entry).items()]
            lines += [f"### {entry.name}", "", _as_markdown(inspect.getdoc(type(entry)) or ""), ""]
            lines += ["Constants:", "", *constants, ""] if constants else []
    return "\n".join(lines)


def _as_markdown(docstring: str) -> str:
    """A rule's docstring with equations, references and citations of the lab log as Markdown has them."""
    text = re.sub(r"`docs/(log/[\w-]+\.md)`", r"[\1](\1)", docstring).replace("``", "`")
    text = re.sub(r"\.\. math:: ((?:.+\n?)+)", _equation, text)
    text = re.sub(
        r"References:\n((?:    .+\n?)+)", lambda match: f"References: {' '.join(match[1].split())}", text
    )
    return re.sub(r"(?<![(<])https://[^\s,;)]+[^\s,;).]", r"<\g<0>>", text)


def _equation(match: re.Match[str]) -> str:
    return "\n".join(["```math", *(line.strip() for line in match[1].splitlines()), "```", ""])


def _field_docstrings(component: type) -> dict[str, str]:
    """What stands under each field of a dataclass, on one line."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(component))).body
    assert isinstance(node, ast.ClassDef)
    texts = {}
    for field, below in pairwise(node.body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
        ):
            texts[field.target.id] = " ".join(str(ast.literal_eval(below.value)).split()).replace("``", "`")
    return texts


def files_to_copy() -> set[str]:
    """Files of the repository that pages lead to, and those that these pages lead to."""
    names = {name for path in DOCS.glob("*.md") for name in REPOSITORY.findall(path.read_text())}
    for name in [name for name in names if name.endswith(".md")]:
        for link in re.findall(r"\]\(((?:\.\./)+[^)#]+)\)", (ROOT / name).read_text()):
            names.add((ROOT / name).parent.joinpath(link).resolve().relative_to(ROOT).as_posix())
    return names


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the pages that are made here, and copies of files elsewhere in the repository that pages lead to."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "cli.md", content=command_line()))
    for name in sorted(files_to_copy()):
        files.append(File.generated(config, f"repository/{name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: "Page", **_: Any) -> str:
    """Lead links to other files of the repository to their copies, and draw equations."""
    if "/" not in page.file.src_uri:
        markdown = REPOSITORY.sub(r"](repository/\1)", markdown)
    if re.fullmatch(r"repository/[^/]+", page.file.src_uri):  # from the root of the repository to its docs
        markdown = markdown.replace("](docs/", "](../")
    return re.sub(r"^```math\n(.*?)^```$", _draw_equation, markdown, flags=re.MULTILINE | re.DOTALL)


def _draw_equation(match: re.Match[str]) -> str:
    """An equation as SVG in the colour of the text around it; what matplotlib can't read is written otherwise first."""
    from matplotlib.mathtext import math_to_image

    tex = re.sub(r"\\sqrt (\w)", r"\\sqrt{\1}", " ".join(match[1].split())).replace(
        r"\bmod", r"\;\mathrm{mod}\;"
    )
    file = io.BytesIO()
    math_to_image(f"${tex}$", file, format="svg", dpi=72)
    svg = re.sub(r"<metadata>.*?</metadata>", "", file.getvalue().decode(), flags=re.DOTALL)
    element = svg[svg.index("<svg") :].replace("<svg", '<svg fill="currentColor"', 1)
    return f"<div>{element}</div>".replace("\n", " ")


def main() -> None:
    """Write the pages that are committed."""
    (LOG / "README.md").write_text(log_index())
    (DOCS / "base-rules.md").write_text(base_rules())


if __name__ == "__main__":
    main()
