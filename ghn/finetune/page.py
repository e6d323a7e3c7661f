"""Tables of text, and pages of them: what comparisons and evaluations show on a terminal, as Markdown and as HTML."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table as RichTable


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as they are shown."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def markdown(self) -> str:
        """The table as Markdown, with the title as a paragraph before it."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        head, rule, *body = (f"| {' | '.join(line)} |" for line in lines)
        return "\n".join([*([self.title, ""] if self.title else []), head, rule.replace(" ", ""), *body])

    def terminal(self, caption: str = "") -> RichTable:
        """The table for a terminal, numbers to the right."""
        table = RichTable(title=self.title, title_justify="left", caption=caption, caption_justify="left")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table


def page(
    title: str,
    tables: Sequence[Table],
    *,
    remarks: Sequence[str] = (),
    pictures: Mapping[str, bytes],
    files: Mapping[str, str],
    facts: Mapping[str, Mapping[str, Any]],
) -> str:
    """A page that needs no other file and no network.

    Args:
        title: Its heading.
        tables: Results.
        remarks: Paragraphs below them.
        pictures: PNG files, by what they show.
        files: Names of files beside the page that it leads to, and what they hold.
        facts: Names and values such as settings, by heading.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = _plain
    images = {caption: base64.b64encode(picture).decode() for caption, picture in pictures.items()}
    return environment.get_template("page.html").render(
        title=title, tables=tables, remarks=remarks, pictures=images, files=files, facts=facts
    )


def png_of(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {entry}" for name, entry in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "–"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
