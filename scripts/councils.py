"""Fifty invented councils for `chaos`: their country, their intakes, and the judgement at the end.

Each has a square of its own, so who is responsible is known without the service, and a path of its
own, so what arrived where is known without the service too. Ten misbehave, each in its own way. The
service's database is only asked why something has not arrived; what it counts as delivered must
have been taken by the council.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from api.delivery import signing
from scripts.stub import Answer, Request, challenge_of

COUNCILS: Final = 50
# By council; the others behave.
MISBEHAVIOUR: Final[Mapping[int, str]] = {
    3: "fails",
    8: "flaky",
    13: "refuses",
    18: "gone",
    23: "busy",
    28: "silent",
    33: "cuts",
    38: "loses",
    43: "drips",
    48: "not_ours",
}
LATE: Final = frozenset({10, 20})  # register when half of the reports are in
WHOSE: Final = 49  # named by the council that says "not ours"
SIDE: Final = 0.01  # of a square, in degrees; they stand apart, so that none is in doubt
STEP: Final = 0.05


def code(council: int) -> str:
    """A council's code in the dataset."""
    return f"C06{council:06}"


def entitled(council: int) -> set[int]:
    """Who may get a report from this council's square."""
    return {council, WHOSE} if MISBEHAVIOUR.get(council) == "not_ours" else {council}


# --- the country ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Posted:
    """A report as it was posted, and the council whose square it is in."""

    council: int
    body: Mapping[str, Any]


def squares() -> dict[str, Any]:
    """The country as GeoJSON."""
    features = []
    for council in range(COUNCILS):
        west, south = _corner(council)
        east, north = west + SIDE, south + SIDE
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        features.append(
            {
                "type": "Feature",
                "properties": {"code": code(council), "name": f"Council {council}"},
                "geometry": {"type": "Polygon", "coordinates": [ring]},
            }
        )
    return {"type": "FeatureCollection", "features": features}


def report(number: int, chance: random.Random) -> Posted:
    """The report with this number, somewhere in a square; each council has its turn."""
    council = number % COUNCILS
    west, south = _corner(council)
    body = {
        "lon": round(west + SIDE * chance.uniform(0.1, 0.9), 7),
        "lat": round(south + SIDE * chance.uniform(0.1, 0.9), 7),
        "category": chance.choice(["pothole", "litter"]),
        "description": f"report {number}",
        "accuracy_m": 5.0,
    }
    return Posted(council, body)


def _corner(council: int) -> tuple[float, float]:
    return 2.0 + STEP * (council % 10), 55.0 + STEP * (council // 10)


# --- the intakes ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Evidence:
    """What clients and councils saw: the truth that the service is held against."""

    posted: dict[int, Posted] = field(default_factory=dict)
    acknowledged: dict[int, str] = field(default_factory=dict)  # by number, the report's id
    came: dict[tuple[int, str], set[str]] = field(default_factory=dict)  # webhook-ids of a report
    taken: Counter[tuple[int, str]] = field(default_factory=Counter)  # by council and webhook-id
    repeated: int = 0  # came again after it was taken
    faults: list[str] = field(default_factory=list)
    # Kept for a search for secrets, if at all
    answers: list[str] | None = None
    payloads: list[str] | None = None


# How often a council misbehaves, and how
_ANSWERS: Final[Mapping[str, tuple[float, Answer]]] = {
    "fails": (1.0, Answer(500, b"oops")),
    "flaky": (0.5, Answer(503)),
    "refuses": (1.0, Answer(400, b"no such category")),
    "gone": (1.0, Answer(410)),
    "busy": (0.8, Answer(429, headers={"retry-after": "3"})),
    "silent": (1.0, Answer(manner="never")),
    "cuts": (1.0, Answer(200, b'{"reference": "cut"}', manner="cut")),
    "drips": (1.0, Answer(200, b'{"reference": "drip by drip"}', manner="drip")),
    "not_ours": (1.0, Answer.of({"not_ours": True, "responsible": code(WHOSE)}, 422)),
}


class Intakes:
    """Where all fifty take reports: they trust nobody, and note what came."""

    def __init__(self, evidence: Evidence, chance: random.Random) -> None:
        self._secrets: dict[int, asyncio.Future[str]] = {}
        self._seen = evidence
        self._chance = chance

    def expect(self, council: int) -> asyncio.Future[str]:
        """The council registers now: what comes waits until its secret is known."""
        self._secrets[council] = asyncio.get_running_loop().create_future()
        return self._secrets[council]

    def secrets(self) -> list[str]:
        """The signing secrets of all who have registered."""
        return [one.result() for one in self._secrets.values()]

    async def handle(self, request: Request) -> Answer:
        """Check, note and answer."""
        council = int(request.path.rpartition("/")[2])
        if self._seen.payloads is not None:
            self._seen.payloads.append(f"{request.headers} {request.body.decode()}")
        # The worker may be here before the answer to the registration is.
        secret = await asyncio.shield(self._secrets[council])
        try:
            signing.verify(secret, request.headers, request.body, now=time.time())
        except signing.InvalidSignature as error:
            self._seen.faults.append(f"council {council}: {error}")
            return Answer(401)
        challenge = challenge_of(request.body)
        if challenge is not None:
            return Answer.of({"challenge": challenge})
        message_id = request.headers["webhook-id"]
        self._note(council, message_id, json.loads(request.body)["data"]["report"])
        return self._answer(council, message_id)

    def _note(self, council: int, message_id: str, report: Mapping[str, Any]) -> None:
        number = int(report["description"].removeprefix("report "))
        posted = self._seen.posted[number].body
        if any(report[name] != posted[name] for name in posted):
            self._seen.faults.append(f"council {council} got report {number} changed: {report}")
        self._seen.came.setdefault((council, report["id"]), set()).add(message_id)

    def _answer(self, council: int, message_id: str) -> Answer:
        manner = MISBEHAVIOUR.get(council, "")
        share, misbehaving = _ANSWERS.get(manner, (0.0, None))
        if misbehaving is not None and self._chance.random() < share:
            return misbehaving
        before = self._seen.taken[council, message_id] > 0
        self._seen.taken[council, message_id] += 1
        if manner == "loses":
            # It has the message, and says so when asked again.
            return Answer(409) if before else Answer(manner="lost")
        self._seen.repeated += before
        return Answer.of({"reference": f"{council}/{message_id[:8]}"}, 201)


# --- judging --------------------------------------------------------------------------------------

# What the workers have still to do for councils that behave
UNSETTLED: Final = """
SELECT (SELECT count(*) FROM reroute)
     + (SELECT count(*) FROM held
        WHERE EXISTS (SELECT FROM endpoint
                      WHERE endpoint.authority_id = held.authority_id AND state = 'active'))
     + (SELECT count(*) FROM delivery JOIN endpoint ON endpoint.id = endpoint_id
        WHERE delivery.state IN ('pending', 'leased')
          AND split_part(url, '/intake/', 2) <> ALL ($1::text[]))
"""

# One row for each report and delivery: where it is, as the service has it on record
WHERE: Final = """
SELECT report.id::text AS report, held.report_id IS NOT NULL AS held,
       reroute.report_id IS NOT NULL AS rerouting, triage.report_id IS NOT NULL AS with_operator,
       delivery.id::text AS delivery, delivery.state, delivery.attempts,
       split_part(endpoint.url, '/intake/', 2) AS council, last.outcome, last.answer, last.error
FROM report
LEFT JOIN held ON held.report_id = report.id
LEFT JOIN reroute ON reroute.report_id = report.id
LEFT JOIN triage ON triage.report_id = report.id
LEFT JOIN delivery ON delivery.report_id = report.id
LEFT JOIN endpoint ON endpoint.id = delivery.endpoint_id
LEFT JOIN LATERAL (
    SELECT outcome, answer, error FROM attempt
    WHERE delivery_id = delivery.id AND outcome IS NOT NULL ORDER BY n DESC LIMIT 1
) AS last ON true
"""


@dataclass(slots=True)
class Tally:
    """What became of the reports that were answered 201."""

    delivered: int = 0
    waiting: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    misrouted: int = 0
    doubled: int = 0
    details: list[str] = field(default_factory=list)


def judge(seen: Evidence, rows: Sequence[Mapping[str, Any]]) -> Tally:
    """Hold what the service has on record (`WHERE`) against what clients and councils saw."""
    tally = Tally()
    on_record: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        on_record.setdefault(row["report"], []).append(row)
    for number, report_id in seen.acknowledged.items():
        council = seen.posted[number].council
        reason = _where(seen, council, on_record.get(report_id, ()))
        if reason == "delivered":
            tally.delivered += 1
        elif reason.startswith("LOST"):
            tally.lost += 1
            tally.details.append(f"report {number} ({report_id}) of council {council}: {reason}")
        else:
            tally.waiting[reason] += 1
    councils = {report: seen.posted[n].council for n, report in seen.acknowledged.items()}
    for (council, report), message_ids in seen.came.items():
        if report not in councils or council not in entitled(councils[report]):
            tally.misrouted += 1
            tally.details.append(f"report {report} came to council {council}")
        if len(message_ids) > 1:
            tally.doubled += 1
            tally.details.append(f"report {report} came as {sorted(message_ids)}")
    # A second report of one post, or one that nobody was told of: every post was answered.
    strangers = on_record.keys() - councils.keys()
    tally.doubled += len(strangers) + len(seen.acknowledged) - len(councils)
    tally.details += [f"report {report} was never acknowledged" for report in sorted(strangers)]
    return tally


def _where(seen: Evidence, council: int, rows: Sequence[Mapping[str, Any]]) -> str:
    """Where a report is: "delivered", why it waits, or that it is LOST."""
    if not rows:
        return "LOST: it is not stored"
    sent = [row for row in rows if row["delivery"] is not None]
    done = [row for row in sent if row["state"] == "delivered"]
    for row in done:
        if not seen.taken[int(row["council"]), row["delivery"]]:
            return f"LOST: council {row['council']} never took what counts as delivered"
    if any(int(row["council"]) in entitled(council) for row in done):
        return "delivered"
    # Everybody can reach a council that behaves: there is no reason to wait for it any more.
    manner = MISBEHAVIOUR.get(council)
    for name in ("held", "rerouting", "with_operator"):
        if rows[0][name] and manner is not None:
            return f"{name}: the council is {manner}"
    for row in sent:
        waits = row["state"] in {"pending", "leased"}
        died = row["state"] == "dead" and (row["answer"] or row["error"])
        if (waits or died) and int(row["council"]) == council and manner is not None:
            return f"{'deferred' if waits else 'dead'}: the council is {manner}"
    states = [(row["council"], row["state"], row["outcome"], row["error"]) for row in sent]
    return f"LOST: it waits without a reason, {dict(rows[0])}, {states}"


def excused() -> list[str]:
    """The councils, as in their addresses, whose deliveries are not waited for."""
    # Who says "not ours" is done with at once.
    return [str(n) for n, manner in MISBEHAVIOUR.items() if manner != "not_ours"]
