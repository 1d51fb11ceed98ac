"""The judgement of a chaos run finds what it must find: it is no use if it always says "fine"."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.councils import MISBEHAVIOUR, WHOSE, Evidence, Posted, Tally, judge

GOOD = 1
[GONE] = [council for council, manner in MISBEHAVIOUR.items() if manner == "gone"]
[NOT_OURS] = [council for council, manner in MISBEHAVIOUR.items() if manner == "not_ours"]
[REFUSES] = [council for council, manner in MISBEHAVIOUR.items() if manner == "refuses"]


def row(council: int, state: str | None = "delivered", **facts: Any) -> dict[str, Any]:
    """A row of `WHERE`; without a state there is no delivery."""
    return {
        **dict.fromkeys(["held", "rerouting", "with_operator"], False),
        **dict.fromkeys(["outcome", "answer", "error"]),
        "report": "r",
        "delivery": "d" if state else None,
        "state": state,
        "council": str(council) if state else None,
        **facts,
    }


def judged(
    council: int,
    rows: list[dict[str, Any]],
    *,
    taken: tuple[int, str] | None = None,
    came: dict[tuple[int, str], set[str]] | None = None,
) -> Tally:
    seen = Evidence(posted={0: Posted(council, {})}, acknowledged={0: "r"}, came=came or {})
    if taken:
        seen.taken[taken] += 1
    return judge(seen, rows)


@pytest.mark.parametrize(
    ("council", "rows", "taken"),
    [
        (GOOD, [row(GOOD)], (GOOD, "d")),
        (NOT_OURS, [row(NOT_OURS, "cancelled"), row(WHOSE, delivery="e")], (WHOSE, "e")),
    ],
)
def test_delivered(council: int, rows: list[dict[str, Any]], taken: tuple[int, str]) -> None:
    tally = judged(council, rows, taken=taken, came={(taken[0], "r"): {taken[1]}})
    assert tally == Tally(delivered=1)


@pytest.mark.parametrize(
    ("council", "rows"),
    [
        (GOOD, []),
        # It counts as delivered, and nobody took it.
        (GOOD, [row(GOOD)]),
        (GOOD, [row(GOOD, "pending", outcome="deferred", error="no answer")]),
        (GOOD, [row(GOOD, "dead", outcome="rejected", error="answered 400")]),
        (GOOD, [row(GOOD, None)]),
        (GOOD, [row(GOOD, None, held=True)]),
        (GOOD, [row(GOOD, None, with_operator=True)]),
        (NOT_OURS, [row(NOT_OURS, "cancelled")]),
        # Under way, to somebody who behaves or to the wrong one
        (NOT_OURS, [row(WHOSE, "pending")]),
        (REFUSES, [row(GONE, "pending")]),
        # Given up without an answer or a reason
        (REFUSES, [row(REFUSES, "dead")]),
    ],
)
def test_lost(council: int, rows: list[dict[str, Any]]) -> None:
    tally = judged(council, rows)
    assert (tally.lost, tally.delivered, tally.waiting.total()) == (1, 0, 0)
    assert tally.details


@pytest.mark.parametrize(
    ("council", "rows", "reason"),
    [
        (GONE, [row(GONE, None, held=True)], "held"),
        (GONE, [row(GONE, "pending")], "deferred"),
        (REFUSES, [row(REFUSES, "dead", error="answered 400")], "dead"),
        (NOT_OURS, [row(NOT_OURS, "cancelled", rerouting=True)], "rerouting"),
    ],
)
def test_waiting(council: int, rows: list[dict[str, Any]], reason: str) -> None:
    tally = judged(council, rows)
    assert (tally.lost, tally.delivered) == (0, 0)
    [(said, count)] = tally.waiting.items()
    assert said.startswith(f"{reason}: the council is ")
    assert count == 1


def test_misrouted() -> None:
    tally = judged(GOOD, [row(GOOD)], taken=(GOOD, "d"), came={(GOOD + 1, "r"): {"d"}})
    assert tally.misrouted == 1
    assert judged(GOOD, [row(GOOD)], came={(GOOD, "unheard of"): {"d"}}).misrouted == 1


def test_doubled() -> None:
    came = {(GOOD, "r"): {"d", "e"}}
    assert judged(GOOD, [row(GOOD)], taken=(GOOD, "d"), came=came).doubled == 1
    # A second report of the same post
    rows = [row(GOOD), row(GOOD, report="s")]
    assert judged(GOOD, rows, taken=(GOOD, "d")).doubled == 1
    # One report for two posts
    seen = Evidence(
        posted={0: Posted(GOOD, {}), 1: Posted(GOOD, {})}, acknowledged={0: "r", 1: "r"}
    )
    assert judge(seen, [row(GOOD)]).doubled == 1
