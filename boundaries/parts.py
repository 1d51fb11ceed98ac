"""A file that is written part by part, and resumed behind its last whole part.

The parts grow in a hidden folder beside the file, with a journal of one line per part that is whole
and on the disk; in the end the file is renamed to its place. Promises that it stands there whole or
not at all, and that parts are only continued with what they were begun with. It does not know what
the parts hold.
"""

from __future__ import annotations

import csv
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from boundaries.tables import (
    BadRow,
    BulkConflictError,
    BulkError,
    format_of,
    one_line,
    write_footer,
)


@dataclass(frozen=True, slots=True)
class Done:
    """How far a run has come at the end of a part: counts of rows, and the lengths of its files."""

    rows: int = 0
    bad: int = 0
    uncovered: int = 0
    bytes: int = 0
    bad_bytes: int = 0


class BadRows:
    """The file of bad rows: made when the first one is met, on the disk with every part."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def rewind(self, size: int, *, fresh: bool) -> None:
        """Take back what was written after the last part."""
        if fresh and self.path.exists():
            raise BulkConflictError(
                f"{self.path} exists already; remove it or choose another --bad"
            )
        if size:
            _cut(self.path, size)
        else:
            self.path.unlink(missing_ok=True)

    def write(self, rows: Sequence[BadRow]) -> None:
        """Append rows."""
        if rows and self._file is None:
            self._file = self.path.open("a", encoding="utf-8", newline="")
            if not self.path.stat().st_size:
                self._file.write("row,reason\n")
        if self._file is not None:
            csv.writer(self._file, lineterminator="\n").writerows(rows)

    def sync(self) -> int:
        """The file's length, all of it being on the disk."""
        if self._file is None:
            return self.path.stat().st_size if self.path.exists() else 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self, *, keep: bool) -> None:
        """Close it, and remove what was written if it is not to be kept."""
        if self._file is not None:
            self._file.close()
            if not keep:
                self.path.unlink()


class Parts:
    """The output as far as it is written, its journal, and the file of bad rows."""

    def __init__(
        self, out: Path, output: Path, bad: BadRows, journal: IO[bytes], ends: list[Done]
    ) -> None:
        self.out, self.output, self.bad = out, output, bad
        self._journal, self._ends = journal, ends
        self.finished = False

    @property
    def done(self) -> Done:
        """Where the last whole part ends."""
        return self._ends[-1] if self._ends else Done()

    def __bool__(self) -> bool:
        return bool(self._ends)

    def rewind(self, *, fresh: bool) -> None:
        """Take back what was written after the last part."""
        _cut(self.output, self.done.bytes)
        self.bad.rewind(self.done.bad_bytes, fresh=fresh)

    def add(self, *, rows: int, bad: int, uncovered: int) -> None:
        """Enter a part into the journal once all of it is on the disk."""
        done = self.done
        _sync(self.output)
        end = Done(
            rows=rows,
            bad=done.bad + bad,
            uncovered=done.uncovered + uncovered,
            bytes=self.output.stat().st_size,
            bad_bytes=self.bad.sync(),
        )
        _append_line(self._journal, dataclasses.asdict(end))
        self._ends.append(end)

    def finish(self) -> None:
        """Make one whole file of the parts and move it to its place."""
        if format_of(self.out) == ".parquet" and len(self._ends) > 1:
            write_footer(self.output, [end.bytes for end in self._ends])
            _sync(self.output)
        if self.out.exists():
            raise BulkConflictError(f"{self.out} was made meanwhile; move it and use --resume")
        self.output.rename(self.out)
        _sync(self.out.parent)
        self.finished = True


@contextmanager
def open_parts(
    out: Path, bad: BadRows, made_from: dict[str, Any], *, resume: bool
) -> Iterator[Parts]:
    """The parts of an output: none, or those of the run to be resumed.

    When the run is broken off they stay, unless there are none yet.
    """
    folder = out.with_name(f".{out.name}.parts")
    with _writing(out):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not resume:
                also = f" and {bad.path}" if bad.path.exists() else ""
                raise BulkConflictError(
                    f"{folder} holds what a run has written that was broken off, or that is still "
                    f"going on; continue it with --resume, or remove {folder}{also}"
                ) from None
        with (folder / "journal").open("a+b") as journal:
            ends, fresh = _read_journal(journal, folder, made_from)
            parts = Parts(out, folder / "output", bad, journal, ends)
            try:
                parts.rewind(fresh=fresh)
                yield parts
            finally:
                bad.close(keep=bool(parts))
                if parts.finished or not parts:
                    shutil.rmtree(folder)


def _read_journal(
    journal: IO[bytes], folder: Path, made_from: dict[str, Any]
) -> tuple[list[Done], bool]:
    """The ends of the parts so far, and whether the run begins now."""
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BulkConflictError(f"another run is writing to {folder}; let it finish") from None
    journal.seek(0)
    lines = journal.read().split(b"\n")[:-1]  # a line without an end was broken off
    journal.truncate(sum(len(line) + 1 for line in lines))
    if not lines:
        _append_line(journal, made_from)
        return [], True
    try:
        began, *ends = map(json.loads, lines)
        changed = [what for what, value in made_from.items() if began[what] != value]
        done = [Done(**end) for end in ends]
    except (ValueError, TypeError, KeyError):
        raise BulkConflictError(f"{folder} is damaged; remove it and start again") from None
    if changed:
        raise BulkConflictError(
            f"{folder} was written with another {changed[0]}: {began[changed[0]]}, not "
            f"{made_from[changed[0]]}; resume with the same, or remove it and start again"
        )
    return done, False


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Turn what may go wrong with a disk into `BulkError`; reading does so for itself."""
    try:
        yield
    except OSError as error:
        raise BulkError(
            f"{out} cannot be written: {one_line(error)}; --resume goes on when that is mended"
        ) from None


def _cut(path: Path, size: int) -> None:
    """Cut a file to the length that it had; one that was empty need not be there."""
    if size and (not path.exists() or path.stat().st_size < size):
        raise BulkConflictError(
            f"{path} is not what the run left that was broken off; remove the parts and start again"
        )
    with path.open("ab") as file:
        file.truncate(size)


def _append_line(journal: IO[bytes], entry: dict[str, Any]) -> None:
    journal.write(json.dumps(entry).encode() + b"\n")
    journal.flush()
    os.fsync(journal.fileno())


def _sync(path: Path) -> None:
    """See to it that a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
