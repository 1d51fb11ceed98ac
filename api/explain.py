"""Why a report is where it is, in plain sentences, and whether it would go there today.

The decision is read as it was stored, then made again twice: by the dataset that made it, and by
the one in force today. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

import asyncpg

from api import london
from api.routing import UNUSABLE, OpenVersion
from api.schemas import DecisionOut
from api.store import datasets, events, reports, reroutes
from boundaries.dataset import Dataset
from georouter.model import Decision, NotACandidate, Rules, UnknownCategory
from georouter.router import Router

# The events that come with a decision of their own
MOVES = {"rerouted", "answered"}


@dataclass(frozen=True, slots=True)
class Explained:
    """The sentences, and whether today's dataset and rules would give the report to the same body.

    `same_today` is None where that cannot be found out.
    """

    sentences: tuple[str, ...]
    same_today: bool | None


async def explain(
    conn: asyncpg.Connection,
    report_id: UUID,
    *,
    rules: Rules,
    today: date,
    open_version: OpenVersion,
) -> Explained | None:
    """Explain where a report is; None if there is no such report."""
    row = await reports.find_question(conn, report_id)
    if row is None:
        return None
    decision = DecisionOut.model_validate(row["decision"])
    happened = await events.list_events(conn, report_id)
    # Whoever refused after the decision had no part in it.
    decided = max((event["n"] for event in happened if event["kind"] in MOVES), default=0)
    refused = (await reroutes.find_refusals(conn, report_id, before=decided)).codes
    sentences = [
        f"Report {report_id}: {row['category']} at {row['lon']:.6f}, {row['lat']:.6f}.",
        f"Received {row['received_at']:%Y-%m-%d %H:%M:%S} UTC.",
        *_decided(decision),
        *_since(happened),
    ]
    replay = Replay(row, rules, refused, decision.as_of or london.day_of(_seconds(row)))
    dataset = await _opened(conn, row["dataset_id"], open_version)
    sentences.append(_compare(replay.by(dataset), decision, "the same dataset"))
    if decision.rules not in (None, rules.version):
        sentences.append(
            f"The rules have been changed since: {decision.rules} then, {rules.version} now."
        )
    active = await datasets.active_dataset(conn)
    if active is None:
        return Explained((*sentences, "No dataset is in force today."), None)
    dataset = await _opened(conn, active["id"], open_version)
    now = Replay(row, rules, refused, today).by(dataset)
    sentences.append(_compare(now, decision, f"today's dataset, {active['version']}"))
    same = None if isinstance(now, str) else _code(now) == _code(decision)
    return Explained(tuple(sentences), same)


@dataclass(frozen=True, slots=True)
class Replay:
    """A report's question, to be asked again as of a day, as `rerouting.again` does.

    A choice counts where it is still one.
    """

    row: Mapping[str, Any]
    rules: Rules
    refused: Collection[str]
    as_of: date

    def by(self, dataset: Dataset | str) -> Decision | str:
        """The decision by a dataset, or why there is none."""
        if isinstance(dataset, str):
            return dataset
        try:
            router = Router(
                dataset.index, rules=self.rules, dataset=dataset.version, roads=dataset.roads
            )
            chosen = self.row["chosen"]
            try:
                return self._ask(router, None if chosen in self.refused else chosen)
            except NotACandidate:
                return self._ask(router, None)
        except (*UNUSABLE, UnknownCategory) as error:
            return str(error)

    def _ask(self, router: Router, chosen: str | None) -> Decision:
        return router.route(
            lon=self.row["lon"],
            lat=self.row["lat"],
            category=self.row["category"],
            accuracy_m=self.row["accuracy_m"],
            road_ref=self.row["road_ref"],
            chosen=chosen,
            as_of=self.as_of,
            refused=self.refused,
        )


async def _opened(
    conn: asyncpg.Connection, dataset_id: int, open_version: OpenVersion
) -> Dataset | str:
    """A dataset, or why it cannot be opened."""
    row = await datasets.get_dataset(conn, dataset_id)
    if row["removed_at"] is not None:
        return f"the artefact of {row['version']} was pruned on {row['removed_at']:%Y-%m-%d}"
    try:
        return await open_version(row["version"], row["manifest"])
    except UNUSABLE as error:
        return str(error)


def _decided(decision: DecisionOut) -> Iterator[str]:
    name = decision.authority.name if decision.authority else "Nobody"
    yield (
        f"{name} is responsible ({decision.state}, rule {decision.rule}, dataset "
        f"{decision.dataset}{f', as of {decision.as_of}' if decision.as_of else ''}): "
        f"{decision.reason}."
    )
    for candidate in decision.candidates:
        yield f"  {candidate.code}  {candidate.name}: {candidate.reason}"
    if decision.question:
        yield f"Left open: {decision.question}"


def _since(happened: Collection[Mapping[str, Any]]) -> Iterator[str]:
    for event in happened:
        words = {
            "received": "given to",
            "rerouted": "routed again, to",
            "not_ours": "not theirs, says",
            "with_operator": "put into the operator's queue",
            "answered": "the reporter answered",
            "status": f"{event['detail'].get('state', '')}, says",
            "attempted": f"{event['detail'].get('outcome', '')}, attempt to hand it to",
        }.get(event["kind"], event["kind"].replace("_", " "))
        detail = event["detail"].get("reason") or event["detail"].get("note")
        yield (
            f"{event['at']:%Y-%m-%d %H:%M:%S}  {words} {event['authority_name'] or ''}".rstrip()
            + (f": {detail}" if detail else "")
        )


def _compare(again: Decision | str, decision: DecisionOut, by: str) -> str:
    if isinstance(again, str):
        return f"Replayed by {by}: not possible; {again}."
    if _code(again) == _code(decision):
        return f"Replayed by {by}: the same body ({again.state}, rule {again.rule})."
    name = again.responsible.name if again.responsible else "nobody"
    return f"Replayed by {by}: {name} ({again.state}, rule {again.rule}): {again.reason}."


def _code(decision: Decision | DecisionOut) -> str | None:
    body = decision.responsible if isinstance(decision, Decision) else decision.authority
    return body.code if body else None


def _seconds(row: Mapping[str, Any]) -> float:
    seconds: float = row["received_at"].timestamp()
    return seconds
