from __future__ import annotations

from itertools import pairwise

from api.delivery.polling import DAY_S, HOUR_S, MINUTE_S, SLOWEST_S, pause_s


def pause(age_s: float, failures: int = 0, jitter: float = 0.99, *, pending: bool = False) -> float:
    return pause_s(age_s=age_s, failures=failures, pending=pending, jitter=jitter)


def test_the_older_the_rarer() -> None:
    ages = [0.0, HOUR_S, 3 * DAY_S, 30 * DAY_S]
    assert all(younger < older for younger, older in pairwise(map(pause, ages)))
    assert pause(0, pending=True) < MINUTE_S
    assert pause(179 * DAY_S) <= SLOWEST_S


def test_failures_back_off_but_not_for_ever() -> None:
    pauses = [pause(0, failures) for failures in range(100)]
    assert all(few <= many for few, many in pairwise(pauses))
    assert pauses[3] == 8 * pauses[0]
    assert pauses[-1] <= SLOWEST_S


def test_jitter_spreads() -> None:
    assert pause(0, jitter=0.0) * 1.9 < pause(0, jitter=0.95)
