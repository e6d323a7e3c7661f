"""What README and documentation say is true: Python runs, commands run or at least have the options they show."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import typer

import ghn.checkpoints
from ghn import GHN, GHNConfig, cli
from ghn.console import spread_lists
from ghn.decoder import DecoderConfig
from ghn.encoder import EncoderConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "how-it-works").glob("*.md")),
]


def blocks(text: str, language: str) -> list[str]:
    """Code of one language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Lines for a shell on a page."""
    return [line for block in blocks(text, "sh") for line in block.splitlines()]


PYTHON = {
    f"{path.stem}-{n}": code for path in PAGES for n, code in enumerate(blocks(path.read_text(), "python"))
}
COMMANDS = commands(README)
GHN_COMMANDS = [command for command in COMMANDS if command.startswith("ghn ")]
FURTHER_COMMANDS = [
    line for path in PAGES[1:] for line in commands(path.read_text()) if line.startswith("ghn ")
]
LONG = ("compare", "merge", "train")
"""Commands whose own tests run them shorter."""


@pytest.fixture(autouse=True)
def shipped_checkpoint(tmp_path, monkeypatch):
    """A tiny hypernetwork in place of the default one: what is tested is the README, not the checkpoint."""
    folder = tmp_path / "shipped" / ghn.checkpoints.DEFAULT_CHECKPOINT
    torch.manual_seed(0)
    encoder = EncoderConfig(hidden=16, layers=1, heads=2)
    GHN(GHNConfig(encoder=encoder, decoder=DecoderConfig(hidden=16, rank=4))).save_pretrained(folder)
    monkeypatch.setattr(ghn.checkpoints, "shipped_folders", lambda: [folder])


def _options(command: typer.core.TyperCommand) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def test_there_are_blocks_to_test():
    assert len(PYTHON) >= 10
    assert len(GHN_COMMANDS) >= 5
    assert len(FURTHER_COMMANDS) >= 8
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("code", PYTHON.values(), ids=PYTHON)
def test_python_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    exec(compile(code, "page", "exec"), namespace)
    assert "ghn" in namespace


@pytest.mark.parametrize("command", dict.fromkeys(GHN_COMMANDS + FURTHER_COMMANDS))
def test_commands_and_options_exist(command):
    name, *arguments = spread_lists(shlex.split(command)[1:], cli.app)
    known = typer.main.get_command(cli.app).commands
    assert name in known
    assert not {argument for argument in arguments if argument.startswith("--")} - _options(known[name])
    # Reads every value as its type, and runs nothing.
    known[name].make_context(name, arguments)


@pytest.mark.parametrize("command", [c for c in GHN_COMMANDS if c.split()[1] not in LONG])
def test_quick_commands_run(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    cli.main()
    assert capsys.readouterr().out
    for name in re.findall(r"--(?:out|image|json) (\S+)", command):
        assert (tmp_path / name).exists()


def test_every_command_of_the_program_is_in_the_readme():
    shown = {shlex.split(command)[1] for command in GHN_COMMANDS}
    assert shown == typer.main.get_command(cli.app).commands.keys()


def test_ci_runs_the_test_command_of_the_readme():
    pattern = re.search(r"grep -x '(.*)' README.md", (ROOT / ".ci" / "run").read_text())
    assert pattern is not None
    found = [command for command in COMMANDS if re.fullmatch(pattern[1], command)]
    assert len(found) == 1
    assert sum(bool(re.fullmatch(pattern[1], line)) for line in README.splitlines()) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_files_and_folders_that_it_names_exist(page):
    text = page.read_text()
    named = [path for path in re.findall(r"\]\(([^)#]+)\)", text) if not path.startswith("http")]
    made = {"cli.md", "base-rules.md"}  # by mkdocs
    assert not [path for path in named if not (page.parent / path).exists() and Path(path).name not in made]
    named = re.findall(r"\b(?:scripts|benchmarks|checkpoints|docs/log|ghn)/[\w/.-]*\w", text)
    assert not [path for path in named if not (ROOT / path).exists()]


def test_readme_leads_somewhere():
    assert len(re.findall(r"\]\((?!http)", README)) > 5
