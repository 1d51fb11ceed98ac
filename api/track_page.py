"""The private link as a page: what the timeline says, without a script or anything from elsewhere.

It promises that nothing in it is taken for markup that was not written here. Forms lead to
addresses beside its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from typing import Final

from api.schemas import Track, TrackEvent
from api.timeline import moment

STYLE: Final = """
body{font:1.1rem/1.5 sans-serif;max-width:40rem;margin:auto;padding:1rem;color:#111;background:#fff}
ol{list-style:none;padding:0}li{border-left:.3rem solid #777;padding:0 0 1rem 1rem}
time{display:block;color:#444;font-size:.95rem}blockquote{margin:.3rem 0;font-style:italic}
.now{font-size:1.3rem;font-weight:bold}button{font:inherit;padding:.6rem 1rem}
@media(prefers-color-scheme:dark){body{color:#eee;background:#111}time{color:#bbb}a{color:#9cf}}
"""
_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
PRIVATE: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
    "Vary": "Accept",
}
"""Headers of all that is behind a private link: it is nobody's to keep, to pass on or to list."""

HEADERS: Final[Mapping[str, str]] = {
    **PRIVATE,
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}

_MAIL: Final = {
    "unconfirmed": "You asked for news by mail. Confirm it by the link in the mail that we sent.",
    "on": "You get news of this report by mail.",
    "unsubscribed": "You get no mail about this report any more.",
    "stopped": "Our mail to you came back, so we send none any more.",
    "unavailable": "You asked for news by mail, but this service sends none. Keep this link.",
}


def track_page(track: Track, *, token: str) -> str:
    """A report's timeline."""
    last = token.rsplit("/", 1)[-1]
    title = f"Your report: {track.category.replace('_', ' ')}"
    parts = [
        f"<p class='now'>{escape(track.headline)}</p>",
        f"<p>{escape(track.description)}</p>",
        f"<p>{escape(_count(track.reports))}</p>" if track.reports > 1 else "",
        f"<p>Why {escape(track.authority.name)}: {escape(track.why)}.</p>"
        if track.authority
        else "",
        "<h2>What has happened</h2><ol>",
        *(_item(event) for event in track.events),
        "</ol>",
    ]
    if track.can_say_still_there:
        parts.append(
            "<h2>Is it still there?</h2><p>If it has not been mended, say so, and the report is "
            "opened again.</p>" + _button(f"{last}/still-there", "It is still there")
        )
    if track.mail != "not_wanted":
        parts.append(f"<h2>Mail</h2><p>{escape(_MAIL[track.mail])}</p>")
    if track.mail in {"on", "unconfirmed"}:
        parts.append(_button(f"{last}/unsubscribe", "Send me no mail"))
    parts.append("<p>This page is yours: whoever has its address can read it.</p>")
    return page(title, "".join(parts))


def question_page(title: str, text: str, *, action: str, button: str) -> str:
    """A page that asks to press a button: those who look at links for people press none."""
    return page(title, f"<p>{escape(text)}</p>{_button(action, button)}")


def notice_page(title: str, text: str) -> str:
    """A page that says something."""
    return page(title, f"<p>{escape(text)}</p>")


def page(title: str, body: str) -> str:
    """The page around a body, which is markup."""
    return (
        "<!doctype html><html lang='en-GB'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )


def _item(event: TrackEvent) -> str:
    note = f"<blockquote>{escape(event.note)}</blockquote>" if event.note else ""
    return (
        f"<li><time datetime='{event.at.isoformat()}'>{moment(event.at)}</time>"
        f"{escape(event.sentence)}{note}</li>"
    )


def _button(action: str, label: str) -> str:
    return (
        f"<form method='post' action='{escape(action)}'>"
        f"<button type='submit'>{escape(label)}</button></form>"
    )


def _count(reports: int) -> str:
    return f"{reports} people have reported this."
