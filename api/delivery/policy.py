"""What an endpoint's answer means, and what becomes of the delivery after it. Pure.

Outcomes are values: a channel makes one, `after` turns it into the delivery's next state and delay.
Nothing here sleeps, stores or reads a clock; jitter and the present are arguments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Literal, assert_never

ANSWER_BYTES = 2048
REFERENCE_CHARS = 100
HOUR_S = 3600.0
# The longest wait after the 1st, 2nd, ... try; the last one repeats.
SCHEDULE_S = (10.0, 30.0, 120.0, 600.0, 1800.0, 2 * HOUR_S, 6 * HOUR_S, 12 * HOUR_S)
MAX_AGE_S = 72 * HOUR_S
MAX_RETRY_AFTER_S = 24 * HOUR_S
MAX_REJECTIONS = 3
# The circuit breaker: so many failures in a row open it, then one probe is made in so many seconds.
BREAK_AFTER = 5
PROBE_EVERY_S = 60.0
# A client error by its number, but one that passes: time-out, too early, too many requests
_PASSING = {408, 425, 429}
# Where a council's system refuses what it is told; 200 will do as well
_NOT_OURS = {400, 404, 409, 410, 422}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What was seen: the status, if an answer came at all, and the beginning of its body."""

    status: int | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered(_Facts):
    """The endpoint has the message; `reference` is the number it gave it.

    `token` is a receipt to be exchanged for that number; `follow`: it can be asked what becomes of
    it. `nothing_sent`: it only counts as delivered.
    """

    reference: str | None = None
    token: str | None = None
    follow: bool = False
    nothing_sent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred(_Facts):
    """It could not take the message now; `retry_after_s` is the least wait it asked for.

    `unsure`: it may have taken it all the same.
    """

    why: str
    retry_after_s: float | None = None
    unsure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected(_Facts):
    """It does not want this message. Endpoints say so by mistake too, so a few tries are made."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone(_Facts):
    """It takes no messages any more."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotOurs(_Facts):
    """It says that another body is responsible; `named` is the code of the one it names."""

    why: str
    named: str | None = None


Outcome = Delivered | Deferred | Rejected | Gone | NotOurs


@dataclass(frozen=True, slots=True)
class Next:
    """The delivery's state after an attempt; `delay_s` counts for a pending one."""

    state: Literal["pending", "delivered", "dead", "cancelled"]
    delay_s: float = 0.0


def outcome_of(status: int, headers: Mapping[str, str], body: bytes, *, now: float) -> Outcome:
    """Read an HTTP answer. `headers` has lower-case names; `now` is in Unix seconds."""
    # Cut in the middle of a character: what is left of it goes.
    answer = body[:ANSWER_BYTES].decode("utf-8", "ignore")
    why = f"answered {status}"
    said = _said(body)
    if said.get("not_ours") is True and (200 <= status < 300 or status in _NOT_OURS):
        return NotOurs(
            status=status,
            answer=answer,
            why="says that it is not theirs",
            named=_short_text(said.get("responsible")),
        )
    if 200 <= status < 300 or status == 409:
        # 409 is how an endpoint that knows the webhook-id says "I have it already".
        return Delivered(status=status, answer=answer, reference=_short_text(said.get("reference")))
    if status in _PASSING or status >= 500:
        wait_s = _retry_after_s(headers.get("retry-after", ""), now)
        return Deferred(status=status, answer=answer, why=why, retry_after_s=wait_s)
    if status == 410:
        return Gone(status=status, answer=answer, why=why)
    return Rejected(status=status, answer=answer, why=why)


def after(
    outcome: Outcome, *, attempt: int, age_s: float, jitter: float, rejections: int = 0
) -> Next:
    """What follows the outcome of try number `attempt` (from 1) of a delivery `age_s` old.

    A redelivery makes it young, and its next try the first.
    `jitter` in [0, 1) spreads the waits ("full jitter": anything up to the scheduled one), so that
    an endpoint that comes back is not met by all its messages at once. `rejections` counts earlier
    attempts that were rejected.
    """
    match outcome:
        case Delivered():
            return Next("delivered")
        case Gone():
            return Next("dead")
        case NotOurs():
            return Next("cancelled")
        case Rejected():
            given_up = rejections + 1 >= MAX_REJECTIONS
            wait_s = 0.0
        case Deferred():
            # Both: a delivery that aged while its endpoint was paused still gets its short retries.
            given_up = age_s >= MAX_AGE_S and attempt >= len(SCHEDULE_S)
            wait_s = min(outcome.retry_after_s or 0.0, MAX_RETRY_AFTER_S)
        case _:
            assert_never(outcome)
    if given_up:
        return Next("dead")
    scheduled_s = SCHEDULE_S[min(attempt, len(SCHEDULE_S)) - 1]
    # What the endpoint asks for is the least; a Retry-After of 0 does not make us hammer it.
    return Next("pending", max(jitter * scheduled_s, wait_s))


def is_failure(outcome: Outcome) -> bool:
    """Whether the outcome says that the endpoint is not there; a refusal shows that it is."""
    refused = outcome.status is not None and outcome.status < 500
    return isinstance(outcome, Deferred) and not refused


def _said(body: bytes) -> Mapping[str, object]:
    """What a JSON object in an answer says: {"reference": "A-12"} is the authority's own number."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _short_text(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= REFERENCE_CHARS else None


def _retry_after_s(value: str, now: float) -> float | None:
    """Seconds or an HTTP date; None for anything else."""
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,12}", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        # "-0000", an unknown zone, gives a time without one.
        at = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return max(0.0, at - now)
