"""Every command line in the documents names a command that there is, and options that it has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from scripts.cli import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def command_lines(text: str) -> Iterator[str]:
    """What stands in blocks of the console, and in code in the text."""
    for block in re.findall(r"```(?:console|sh|bash)\n(.*?)```", text, re.DOTALL):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            yield line.strip()
    yield from re.findall(r"`(georouter [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def georouter_lines() -> list[tuple[str, str]]:
    return [
        (document.name, line[line.index("georouter ") :])
        for document in DOCUMENTS
        for line in command_lines(document.read_text(encoding="utf-8"))
        if re.match(r"(\w+=\S+ )*georouter ", line)
    ]


@pytest.mark.parametrize(("document", "line"), georouter_lines())
def test_there_are_the_command_and_its_options(document: str, line: str) -> None:
    words = shlex.split(line.replace("\\|", "|"), comments=True)[1:]
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words:
        if words[0].startswith("-") or re.fullmatch(r"\.{3}|[A-Z|]+", words[0]):
            break
        name = words.pop(0)
        assert name in command.commands, f"{document}: {line}"
        command = command.commands[name]
    options = {option for one in command.params for option in one.opts} | {"--help"}
    for word in words:
        if word in {"|", "&", ">", "&&"}:
            break
        if word.startswith("--"):
            assert word.split("=")[0] in options, f"{document}: {line}"


def test_lines_were_found() -> None:
    assert len(georouter_lines()) > 60
