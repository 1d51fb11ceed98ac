from __future__ import annotations

import json

import pytest

from api.delivery import policy
from api.delivery.policy import Deferred, Delivered, Gone, Next, NotOurs, Rejected

NOW = 1_800_000_000.0
HOUR = 3600.0


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, Delivered),
        (201, Delivered),
        (202, Delivered),
        (204, Delivered),
        (409, Delivered),
        (408, Deferred),
        (425, Deferred),
        (429, Deferred),
        (500, Deferred),
        (502, Deferred),
        (503, Deferred),
        (599, Deferred),
        (301, Rejected),
        (302, Rejected),
        (307, Rejected),
        (400, Rejected),
        (401, Rejected),
        (404, Rejected),
        (422, Rejected),
        (410, Gone),
    ],
)
def test_statuses(status: int, kind: type[policy.Outcome]) -> None:
    outcome = policy.outcome_of(status, {}, b"because", now=NOW)
    assert type(outcome) is kind
    assert (outcome.status, outcome.answer) == (status, "because")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("999999999999", 999_999_999_999.0),
        ("Fri, 15 Jan 2027 08:01:40 GMT", 100.0),
        ("Fri, 15 Jan 2027 08:01:40 -0000", 100.0),
        ("Fri, 15 Jan 2027 09:01:40 +0100", 100.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("9" * 5000, None),
        ("Fri, 99 Jan 2027 08:01:40 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    outcome = policy.outcome_of(503, {"retry-after": value}, b"", now=NOW)
    assert isinstance(outcome, Deferred)
    assert outcome.retry_after_s == seconds


@pytest.mark.parametrize("status", [200, 202, 400, 404, 409, 410, 422])
def test_not_ours(status: int) -> None:
    body = json.dumps({"not_ours": True, "responsible": "E06000001"}).encode()
    outcome = policy.outcome_of(status, {}, body, now=NOW)
    assert isinstance(outcome, NotOurs)
    assert (outcome.named, outcome.status) == ("E06000001", status)
    assert policy.after(outcome, attempt=1, age_s=0, jitter=0.5) == Next("cancelled")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, b'{"not_ours": true}', Deferred),
        (429, b'{"not_ours": true}', Deferred),
        (301, b'{"not_ours": true}', Rejected),
        (200, b'{"not_ours": "yes"}', Delivered),
        (200, b'{"not_ours": false}', Delivered),
        (200, b'["not_ours"]', Delivered),
    ],
)
def test_what_is_no_not_ours(status: int, body: bytes, kind: type[policy.Outcome]) -> None:
    assert type(policy.outcome_of(status, {}, body, now=NOW)) is kind


@pytest.mark.parametrize("named", [7, "", "x" * 101, None])
def test_who_is_named_makes_sense_or_is_nobody(named: object) -> None:
    body = json.dumps({"not_ours": True, "responsible": named}).encode()
    outcome = policy.outcome_of(200, {}, body, now=NOW)
    assert isinstance(outcome, NotOurs)
    assert outcome.named is None


@pytest.mark.parametrize(
    ("body", "reference"),
    [
        (b'{"reference": "A-12"}', "A-12"),
        (json.dumps({"reference": "x" * 100}).encode(), "x" * 100),
        (json.dumps({"reference": "x" * 101}).encode(), None),
        (b'{"reference": ""}', None),
        (b'{"reference": 12}', None),
        (b'{"other": "A-12"}', None),
        (b'["reference"]', None),
        (b"thank you", None),
        (b"\xff\xfe", None),
        (b"[" * 60_000, None),
        (b"", None),
    ],
)
def test_reference(body: bytes, reference: str | None) -> None:
    for status in (200, 409):
        outcome = policy.outcome_of(status, {}, body, now=NOW)
        assert isinstance(outcome, Delivered)
        assert outcome.reference == reference


def test_an_answer_is_cut_between_characters() -> None:
    outcome = policy.outcome_of(400, {}, b"x" + "é".encode() * 5000, now=NOW)
    assert outcome.answer == "x" + "é" * 1023


LATER = Deferred(why="answered 503")
NO = Rejected(why="answered 404")


@pytest.mark.parametrize(
    ("outcome", "attempt", "age_s", "jitter", "rejections", "expected"),
    [
        (Delivered(), 1, 0.0, 0.5, 0, Next("delivered")),
        (Delivered(), 40, 99 * HOUR, 0.5, 2, Next("delivered")),
        (Gone(why="answered 410"), 1, 0.0, 0.5, 0, Next("dead")),
        # the schedule, at full jitter and at half
        (LATER, 1, 0.0, 1.0, 0, Next("pending", 10.0)),
        (LATER, 2, 0.0, 1.0, 0, Next("pending", 30.0)),
        (LATER, 3, 0.0, 1.0, 0, Next("pending", 120.0)),
        (LATER, 4, 0.0, 1.0, 0, Next("pending", 600.0)),
        (LATER, 5, 0.0, 1.0, 0, Next("pending", 1800.0)),
        (LATER, 6, 0.0, 1.0, 0, Next("pending", 2 * HOUR)),
        (LATER, 7, 0.0, 1.0, 0, Next("pending", 6 * HOUR)),
        (LATER, 8, 0.0, 1.0, 0, Next("pending", 12 * HOUR)),
        (LATER, 9, 71 * HOUR, 1.0, 0, Next("pending", 12 * HOUR)),
        (LATER, 1, 0.0, 0.0, 0, Next("pending", 0.0)),
        (LATER, 3, 0.0, 0.5, 0, Next("pending", 60.0)),
        # the end: old, and not for want of tries
        (LATER, 14, 72 * HOUR, 0.5, 0, Next("dead")),
        (LATER, 8, 72 * HOUR, 0.5, 0, Next("dead")),
        (LATER, 1, 500 * HOUR, 0.5, 0, Next("pending", 5.0)),
        # Retry-After is the least wait, up to a day
        (Deferred(why="", retry_after_s=120.0), 1, 0.0, 0.5, 0, Next("pending", 120.0)),
        (Deferred(why="", retry_after_s=0.0), 1, 0.0, 0.5, 0, Next("pending", 5.0)),
        (Deferred(why="", retry_after_s=5.0), 4, 0.0, 0.5, 0, Next("pending", 300.0)),
        (Deferred(why="", retry_after_s=1e12), 1, 0.0, 0.5, 0, Next("pending", 24 * HOUR)),
        # three rejections, however many other tries there were
        (NO, 1, 0.0, 0.5, 0, Next("pending", 5.0)),
        (NO, 2, 0.0, 0.5, 1, Next("pending", 15.0)),
        (NO, 3, 0.0, 0.5, 2, Next("dead")),
        (NO, 6, 9 * HOUR, 0.5, 0, Next("pending", 1 * HOUR)),
        (NO, 9, 9 * HOUR, 0.5, 2, Next("dead")),
    ],
)
def test_what_follows(
    outcome: policy.Outcome,
    attempt: int,
    age_s: float,
    jitter: float,
    rejections: int,
    expected: Next,
) -> None:
    assert (
        policy.after(outcome, attempt=attempt, age_s=age_s, jitter=jitter, rejections=rejections)
        == expected
    )
