"""The webhook channel: a report as signed JSON, POSTed to the authority's address.

The body depends on nothing but the report and its decision, or the event, so every try sends the
same bytes under the same webhook-id, and the receiver can tell a repetition. The signature is of
the attempt's time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from api.delivery import policy, signing
from api.delivery.egress import Egress, EgressFailed, EgressRefused
from api.delivery.outbox import Claimed, rfc3339
from api.webhook_schemas import VERSION


class Webhook:
    """Standard Webhooks over the given egress; `clock` gives Unix seconds."""

    def __init__(self, egress: Egress, clock: Callable[[], float]) -> None:
        self._egress = egress
        self._clock = clock

    async def send(self, claimed: Claimed) -> policy.Outcome:
        """Sign, POST, and read the answer."""
        body = payload(claimed)
        headers = signing.headers(
            [claimed.secret],
            message_id=str(claimed.delivery_id),
            timestamp=int(self._clock()),
            body=body,
        )
        headers["content-type"] = "application/json"
        try:
            answer = await self._egress.post(claimed.url, body, headers)
        except (EgressRefused, EgressFailed) as error:
            # A refused one as well: names are repointed by mistake, and put right again.
            return policy.Deferred(why=str(error))
        return policy.outcome_of(answer.status, answer.headers, answer.body, now=self._clock())


def payload(claimed: Claimed) -> bytes:
    """The message's bytes: the same for every try."""
    event = claimed.event or _created(claimed)
    message = {
        "type": event["type"],
        "schema_version": VERSION,
        "timestamp": event["timestamp"],
        "sequence": claimed.sequence,
        "data": event["data"],
    }
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
            },
            "authority": {"id": str(claimed.authority_id), "name": claimed.authority_name},
            "decision": {
                name: claimed.decision.get(name)
                for name in ("state", "rule", "reason", "question", "candidates", "dataset")
            },
        },
    }
