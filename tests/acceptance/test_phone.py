"""Sixty phones on a bad line: each report once, each photo whole (`make phone` has a thousand)."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from scripts.phone import as_it_must_be, draw, report_all, shows
from tests.support.web import web


async def test_on_a_bad_line_each_report_is_there_once_and_its_photo_whole(
    database_url: str, tmp_path: Path
) -> None:
    store = tmp_path / "photos"
    async with web(database_url, tmp_path, photos=None) as site:
        port = urlsplit(site.base).port
        assert port is not None
        figures = await report_all(
            dsn=database_url,
            photos=store,
            port=port,
            key=site.keys["app"],
            reports=60,
            seed=1,
            patience_s=5.0,
        )
    assert as_it_must_be(figures), figures
    # The line was as bad as it says.
    assert figures["unanswered"] > 30
    assert set(figures["connections"]) >= {"slow", "cut up", "cut down", "no answer"}


def test_a_photo_says_whose_it_is() -> None:
    assert shows(draw(7), 7)
    assert not shows(draw(7), 8)
