"""Fetches an edition of a source into the cache, and says what there is of each source.

What is in the cache whole is not fetched again. A run that was broken off, in whatever way, leaves
nothing half-made in the cache, and the next one goes on with it. Only operators' commands fetch;
the running service never does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from boundaries.cache import Cache, CacheError, Fetched
from boundaries.catalogue import Source, UnknownSourceError
from boundaries.drivers.driver import Progress, Release
from boundaries.drivers.remote import Remote

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Got:
    """A file of the cache, and whether it was fetched just now."""

    fetched: Fetched
    fresh: bool


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a source without asking its service."""

    source: Source
    in_use: str | None
    cached: str | None
    newest: str | None
    """The newest edition that the service had `asked_at`."""
    asked_at: str | None


def fetch(
    source: Source,
    cache: Cache,
    *,
    remote: Remote,
    clock: Clock,
    edition: str | None = None,
    refresh: bool = False,
    progress: Progress = lambda _stage, _share: None,
) -> Got:
    """Have an edition in the cache, by default the newest that the service has.

    One that is there whole is taken as it is, unless `refresh`. Raises `RemoteError`,
    `UnknownSourceError` for an edition that the service does not have, `FileMissingError`,
    `CacheBusyError` and `CacheError`.
    """
    if edition and not refresh and (kept := cache.find(source.name, edition)):
        return Got(kept, fresh=False)  # no need to ask for it
    progress("asking", 0.0)
    release = _pick(source, check(source, cache, remote=remote, clock=clock), edition)
    if not refresh and (kept := cache.find(source.name, release.edition)):
        return Got(kept, fresh=False)
    with _writing(cache), cache.locked(source.name) as work:
        made = source.driver.download(release, remote, work, progress)
        origin = {
            "source": source.name,
            "title": source.title,
            "publisher": source.publisher,
            "edition": release.edition,
            "url": release.url,
            "fetched_at": _instant(clock),
            "licence": source.licence,
            "attribution": source.attribution.replace("{year}", release.edition[:4]),
        }
        return Got(cache.keep(source.name, release.edition, made, origin), fresh=True)


def check(source: Source, cache: Cache, *, remote: Remote, clock: Clock) -> list[Release]:
    """Ask a service what it has, the newest last, and remember that; raises `RemoteError`."""
    releases = source.driver.releases(remote, today=clock().date())
    with _writing(cache):
        cache.note_seen(source.name, releases[-1].edition, _instant(clock))
    return releases


def known(
    sources: Iterable[Source], cache: Cache, manifest: Mapping[str, Any] | None = None
) -> Iterator[Known]:
    """What is known of each; `manifest` is that of the dataset in use, if there is one."""
    in_use = dict(_editions_in(manifest or {}))
    for source in sources:
        kept = cache.editions(source.name)
        seen = cache.seen(source.name)
        yield Known(
            source=source,
            in_use=in_use.get(source.name),
            cached=kept[-1].edition if kept else None,
            newest=seen.edition if seen else None,
            asked_at=seen.at if seen else None,
        )


@contextmanager
def _writing(cache: Cache) -> Iterator[None]:
    """Turn what may go wrong with a disk into `CacheError`; services' faults are none of these."""
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"the cache {cache.folder} cannot be written to ({error.strerror}); make room, or give "
            "us the right to"
        ) from None


def _editions_in(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for layer in manifest.get("layers", []):
        for origin in [layer.get("source") or {}, *layer.get("sources", [])]:
            if "source" in origin and "edition" in origin:
                yield origin["source"], origin["edition"]


def _pick(source: Source, releases: list[Release], edition: str | None) -> Release:
    if edition is None:
        return releases[-1]
    for release in releases:
        if release.edition == edition:
            return release
    has = ", ".join(release.edition for release in releases)
    raise UnknownSourceError(f"{source.name} has no edition {edition!r}; it has {has}")


def _instant(clock: Clock) -> str:
    return clock().astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
