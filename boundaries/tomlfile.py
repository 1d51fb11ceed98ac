"""Opens the TOML files of this folder: recipes, catalogues, corrections, tables of roads.

Promises that whatever is wrong in one is said with file, line and remedy; what may be in it is its
reader's affair.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boundaries.errors import SourceError, SourceNotFoundError
from georouter.entries import At, Fault, line_of, line_of_syntax


class MissingFileFault(Fault):
    """A file that an entry names and that is not there."""


def read_text(path: Path) -> str:
    """The text of a file. Raises `SourceError`."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise SourceNotFoundError(f"{path} does not exist or is no file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}; it must be a text in UTF-8") from None


@contextmanager
def faults_with_lines(path: Path, text: str) -> Iterator[None]:
    """Turn what is wrong with the text, or with an entry in it, into `SourceError`."""
    try:
        yield
    except tomllib.TOMLDecodeError as error:
        line = line_of_syntax(text, error)
        raise SourceError(
            f"{path}, line {line}: this is no TOML: {error}; correct that line"
        ) from None
    except MissingFileFault as fault:
        raise SourceNotFoundError(at_line(path, text, fault.at, str(fault))) from None
    except Fault as fault:
        raise SourceError(at_line(path, text, fault.at, str(fault))) from None


def at_line(path: Path, text: str, at: At, message: str) -> str:
    """A message with where the entry begins that it is about."""
    return f"{path}, line {line_of(text, at)}: {message}"
