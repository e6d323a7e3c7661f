"""Pages of the documentation that are made from other files, so that they can't go stale.

``python scripts/docs_pages.py`` writes the index of the lab log, which is committed; ``mkdocs`` calls :func:`on_files`
for the pages that are made at every build and committed nowhere.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT / "docs" / "log"

_LOG_INTRODUCTION = """# Lab log

What was tried, what came of it, and what was decided, newest first. Negative results stay. "Above" and "below" in an
entry mean entries before and after it in time.

A new entry is a file in this folder that begins with `date`, `number` (its place among those of the day), `question`,
`verdict` and, where there are any, `results`; at most 25 lines: setup, result, decision. Then run
`python scripts/docs_pages.py`, which writes this table.
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
    found = []
    for path in sorted(folder.glob("*.md")):
        if path.name == "README.md":
            continue
        _, head, _ = path.read_text().split("---\n", 2)
        values = yaml.safe_load(head)
        try:
            found.append(
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
    if len({(entry.date, entry.number) for entry in found}) < len(found):
        raise ValueError("two entries of the lab log have the same date and number")
    return sorted(found, key=lambda entry: (entry.date, entry.number), reverse=True)


def log_index(folder: Path = LOG) -> str:
    """The page that lists all entries of the lab log."""
    lines = [_LOG_INTRODUCTION, "| date | question | verdict | results |", "|---|---|---|---|"]
    for entry in entries(folder):
        results = f"`{entry.results}`" if entry.results else "–"
        lines.append(f"| {entry.date} | [{entry.question}]({entry.name}.md) | {entry.verdict} | {results} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the pages that are committed."""
    (LOG / "README.md").write_text(log_index())


if __name__ == "__main__":
    main()
