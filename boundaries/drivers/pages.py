"""Reads what a service gives in pages, and makes sure that it is all of one state of it.

Each page is kept on disk as it came, so that a run that was cut, or killed, is gone on with at the
page after the last whole one. As many features as the service counts, none of them twice, or none
at all: where the service changes in between, everything is read again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from boundaries.cache import write_json, write_whole
from boundaries.drivers.driver import Progress
from boundaries.drivers.remote import RemoteError

MOST_STARTS: Final = 3


@dataclass(frozen=True, slots=True)
class State:
    """What a service says of itself: which one it is, how many features, what tells changes."""

    url: str
    count: int
    changed: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One answer: its bytes, the ids of its features, whether more follow, and how many in all.

    What the service does not say is None.
    """

    body: bytes
    ids: Sequence[Hashable]
    more: bool | None = None
    total: int | None = None


class InconsistentError(Exception):
    """Pages that do not go together. The message says why."""


def read_pages(
    work: Path,
    *,
    state: Callable[[], State],
    ask: Callable[[int], Page],
    parse: Callable[[bytes], Page],
    progress: Progress,
) -> list[Path]:
    """The files of all pages, in order. `ask` gets the page from a position on.

    Raises `RemoteError`, also where the service contradicts itself, which no new try mends.
    """
    for _ in range(MOST_STARTS):
        before = state()
        try:
            pages = _read(work, before, ask, parse, progress)
        except InconsistentError as error:
            shutil.rmtree(work)
            if state() == before:
                raise RemoteError(f"{before.url}: {error}; nothing was kept") from None
        else:
            if state() == before:
                return pages
            shutil.rmtree(work)
    raise RemoteError(
        f"{before.url} was changed while it was read, {MOST_STARTS} times in a row; try later"
    )


def _read(
    work: Path,
    state: State,
    ask: Callable[[int], Page],
    parse: Callable[[bytes], Page],
    progress: Progress,
) -> list[Path]:
    pages, ids = _go_on(work, state, parse)
    while len(ids) < state.count:
        progress("fetching", len(ids) / state.count)
        offset = len(ids)
        page = ask(offset)
        if page.total not in {None, state.count}:
            raise InconsistentError(
                f"it counts {state.count:,} features, and on a page {page.total:,}"
            )
        if not page.ids:
            raise InconsistentError(
                f"it counts {state.count:,} features, and gives none after {offset:,}"
            )
        _add(ids, page)
        if len(ids) > state.count or (len(ids) == state.count and page.more):
            raise InconsistentError(f"it counts {state.count:,} features, and gives more")
        pages.append(work / f"page-{offset:09}.json")
        write_whole(pages[-1], page.body)
    progress("fetching", 1.0)
    return pages


def _go_on(
    work: Path, state: State, parse: Callable[[bytes], Page]
) -> tuple[list[Path], set[Hashable]]:
    """The pages that are there already of the same state, and the ids on them."""
    said = work / "state.json"
    told: Any = {"url": state.url, "count": state.count, "changed": state.changed}
    try:
        same = json.loads(said.read_bytes()) == told
    except (FileNotFoundError, ValueError):
        same = False
    if not same:
        shutil.rmtree(work, ignore_errors=True)
        write_json(said, told)
    pages: list[Path] = []
    ids: set[Hashable] = set()
    for path in sorted(work.glob("page-*.json")):
        if path.name != f"page-{len(ids):09}.json":
            break
        try:
            _add(ids, parse(path.read_bytes()))
        except RemoteError:  # damaged here since: it is asked for again, with what follows
            break
        pages.append(path)
    return pages, ids


def _add(ids: set[Hashable], page: Page) -> None:
    for one in page.ids:
        if one in ids:
            raise InconsistentError(f"it gives the feature {one} twice")
        ids.add(one)
