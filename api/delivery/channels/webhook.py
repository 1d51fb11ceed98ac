"""The webhook channel: a report as signed JSON, POSTed to the authority's address.

The body depends on nothing but the report, its decision and photos, or the event, as they were when
it was owed; so every try sends the same bytes under the same webhook-id, and the receiver can tell
a repetition. The signature is of the attempt's time.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from api.delivery import policy, signing
from api.delivery.egress import Answer, Egress, EgressFailed, EgressRefused
from api.delivery.outbox import Claimed, rfc3339
from api.store.probes import Probe
from api.webhook_schemas import VERSION

# What of a decision a council is told
DECISION_TOLD = ("state", "rule", "reason", "question", "candidates", "dataset")

# Messages that list the report's photos by then
WITH_PHOTOS = {"report.created", "report.updated"}


class Webhook:
    """Standard Webhooks over the given egress; `clock` gives Unix seconds."""

    def __init__(self, egress: Egress, clock: Callable[[], float]) -> None:
        self._egress = egress
        self._clock = clock

    async def send(self, claimed: Claimed) -> policy.Outcome:
        """Sign, POST, and read the answer."""
        try:
            answer = await self._post(claimed, claimed.delivery_id, payload(claimed))
        except (EgressRefused, EgressFailed) as error:
            # A refused one as well: names are repointed by mistake, and put right again.
            return policy.Deferred(why=str(error))
        return policy.outcome_of(answer.status, answer.headers, answer.body, now=self._clock())

    async def probe(self, probe: Probe) -> policy.Outcome:
        """POST a challenge, which must come back in the answer, or a test, which any 2xx passes."""
        message = {
            "type": f"endpoint.{probe.kind}",
            "schema_version": VERSION,
            "timestamp": rfc3339(probe.asked_at),
            "sequence": 0,
            "data": {"challenge": probe.text} if probe.kind == "challenge" else {},
        }
        try:
            answer = await self._post(probe, probe.id, _encoded(message))
        except (EgressRefused, EgressFailed) as error:
            return policy.Deferred(why=str(error))
        if not 200 <= answer.status < 300:
            return policy.Deferred(status=answer.status, why=f"answered {answer.status}")
        if probe.kind == "challenge" and not _echoes(answer.body, probe.text):
            return policy.Deferred(
                status=answer.status,
                why=f"answered {answer.status}, but not with the challenge that it was sent",
            )
        return policy.Delivered(status=answer.status)

    async def _post(self, to: Claimed | Probe, message_id: UUID, body: bytes) -> Answer:
        headers = signing.headers(
            [to.secret, to.old_secret] if to.old_secret else [to.secret],
            message_id=str(message_id),
            timestamp=int(self._clock()),
            body=body,
        )
        headers["content-type"] = "application/json"
        return await self._egress.post(to.url, body, headers)


def _echoes(body: bytes, text: str) -> bool:
    """Whether an answer is the challenge's text, bare or as JSON."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    echo = said.get("challenge") if isinstance(said, dict) else None
    given = echo.encode("utf-8", "replace") if isinstance(echo, str) else body.strip()
    return hmac.compare_digest(given, text.encode())


def payload(claimed: Claimed) -> bytes:
    """The message's bytes: the same for every try."""
    event = claimed.event or _created(claimed)
    data = event["data"]
    if event["type"] in WITH_PHOTOS:
        data = {**data, "photos": list(claimed.photos)}
    message = {
        "type": event["type"],
        "schema_version": VERSION,
        "timestamp": event["timestamp"],
        "sequence": claimed.sequence,
        "data": data,
    }
    return _encoded(message)


def _encoded(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def _created(claimed: Claimed) -> Mapping[str, Any]:
    return {
        "type": "report.created",
        "timestamp": rfc3339(claimed.received_at),
        "data": {
            "report": {
                "id": str(claimed.report_id),
                "category": claimed.category,
                "description": claimed.description,
                "answers": claimed.answers,
                "lon": claimed.lon,
                "lat": claimed.lat,
                "accuracy_m": claimed.accuracy_m,
                "observed_at": rfc3339(claimed.observed_at) if claimed.observed_at else None,
                "received_at": rfc3339(claimed.received_at),
                "spam_suspected": list(claimed.spam),
            },
            "authority": {"id": str(claimed.authority_id), "name": claimed.authority_name},
            "decision": {name: claimed.decision.get(name) for name in DECISION_TOLD},
            "contact": _contact(claimed.reporter),
        },
    }


def _contact(reporter: Mapping[str, str] | None) -> Mapping[str, str | None] | None:
    if reporter is None:
        return None
    return {name: reporter.get(name) for name in ("name", "email", "phone")}
