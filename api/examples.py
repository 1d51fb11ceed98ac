"""The examples that the API's documentation shows, as plain JSON values.

They tell one story: a pothole in Hearthmere, Doggerland. A test holds each against its model, so
that they cannot lie; nothing else reads them.
"""

from __future__ import annotations

from typing import Any

REPORT_ID = "3f0e6f6e-2f0c-4b7e-9d1a-5a2a86a7f0c1"
AUTHORITY_ID = "8a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
ENDPOINT_ID = "5d6c7b8a-9f0e-4d1c-a2b3-c4d5e6f70819"
DELIVERY_ID = "0b9a8c7d-6e5f-4c3d-b2a1-0f1e2d3c4b5a"
PHOTO_ID = "b1f7c3d2-4a5e-4f60-8a9b-7c6d5e4f3a2b"
PHOTO_URL = (
    f"https://georouter.example/v1/photos/{PHOTO_ID}/file"
    "?expires=1794212105&signature=J4mGqM0r1mXH2Yw5lRkq7o2dV8s9TtBzNcPfEuWaKbI"
)

REPORT_IN: dict[str, Any] = {
    "lon": 2.12,
    "lat": 54.71,
    "category": "pothole",
    "description": "Deep hole in the left lane, about 40 cm wide.",
    "accuracy_m": 8,
    "road_ref": None,
    "chosen": None,
    "observed_at": "2026-11-02T08:15:00Z",
    "answers": {"depth_cm": 6.0, "cycle_route": True},
    "photos": [PHOTO_ID],
    "photos_public": False,
}
UPLOAD: dict[str, Any] = {"id": PHOTO_ID, "expires_at": "2026-11-03T08:14:50Z"}
PHOTO_TAKEN: dict[str, Any] = {
    **UPLOAD,
    "width": 2048,
    "height": 1536,
    "hint": {"lon": 2.12001, "lat": 54.70998},
}
PHOTO_IN: dict[str, Any] = {"photo": PHOTO_ID}
PHOTO: dict[str, Any] = {
    "id": PHOTO_ID,
    "state": "stored",
    "width": 2048,
    "height": 1536,
    "url": PHOTO_URL,
    "expires_at": "2026-11-09T08:15:05Z",
    "public_url": None,
}
ENDPOINT_IN: dict[str, Any] = {
    "channel": "webhook",
    "url": "https://intake.hearthmere.example/reports",
    "fallback": False,
    "events": None,
    "categories": ["pothole", "litter"],
}
ENDPOINT_CHANGE: dict[str, Any] = {"events": ["report.created"], "categories": None}
VERIFY_IN: dict[str, Any] = {"code": "K5XW2Z3DPFQW64TM"}
ROTATE_IN: dict[str, Any] = {"old_secret_for_hours": 24}
OPEN311_ENDPOINT_IN: dict[str, Any] = {
    "channel": "open311",
    "url": "https://open311.hearthmere.example/open311/v2",
    "config": {
        "api_key": "the key that Hearthmere gave out",
        "jurisdiction_id": "hearthmere.example",
        "services": {"pothole": "HWY-POT", "litter": "CLN-LIT"},
        "default_service": "GENERAL",
        "updates": True,
    },
}
MAIL_ENDPOINT_IN: dict[str, Any] = {
    "channel": "mail",
    "url": "mailto:highways@hearthmere.example",
}

DECISION: dict[str, Any] = {
    "state": "certain",
    "rule": "covering-area",
    "reason": "the point lies inside Hearthmere",
    "category": "pothole",
    "tier": "highway",
    "dataset": "doggerland-1",
    "rules": "5b0c2f1e",
    "as_of": "2026-11-02",
    "authority": {"id": AUTHORITY_ID, "code": "D06000001", "name": "Hearthmere"},
    "candidates": [
        {
            "code": "D06000001",
            "name": "Hearthmere",
            "layer": "highway",
            "reason": "inside its boundary",
            "distance_m": 0.0,
            "road": None,
            "agreement": None,
            "succeeds": None,
        }
    ],
    "question": None,
}
RECEIPT: dict[str, Any] = {
    "id": REPORT_ID,
    "received_at": "2026-11-02T08:15:04.120000Z",
    "category": "pothole",
    "decision": DECISION,
    "forwarding": "queued",
    "message": "Received. It is on its way to Hearthmere.",
    "links": {"self": f"/v1/reports/{REPORT_ID}"},
}
EVENT: dict[str, Any] = {
    "n": 2,
    "at": "2026-11-03T09:30:00Z",
    "kind": "status",
    "authority": "Hearthmere",
    "state": "planned",
    "reason": None,
    "note": "Marked for repair in the coming week.",
    "reference": "HM-2026-10433",
    "expected_on": "2026-11-10",
}
UPDATE_IN: dict[str, Any] = {
    "update_id": "10433-2",
    "state": "planned",
    "reason": None,
    "responsible": None,
    "note": "Marked for repair in the coming week.",
    "reference": "HM-2026-10433",
    "expected_on": "2026-11-10",
}
ANSWER_IN: dict[str, Any] = {"chosen": "D06000001", "road_ref": None}
ASSIGN_IN: dict[str, Any] = {"authority": "D06000001"}
TRIAGE_PAGE: dict[str, Any] = {
    "items": [
        {
            "report_id": REPORT_ID,
            "since": "2026-11-04T10:00:00Z",
            "reason": "Hearthmere said that it is not theirs, and nobody else answers near here",
            "category": "pothole",
            "lon": 2.12,
            "lat": 54.71,
            "description": "Deep hole in the left lane, about 40 cm wide.",
            "last": "Hearthmere",
        }
    ],
    "next_cursor": None,
}
REPORT_OUT: dict[str, Any] = {
    **RECEIPT,
    "state": "forwarded",
    "current": DECISION,
    "status": "planned",
    "events": [
        {
            "n": 1,
            "at": "2026-11-02T08:15:04.120000Z",
            "kind": "received",
            "authority": "Hearthmere",
            "state": None,
            "reason": None,
            "note": None,
            "reference": None,
            "expected_on": None,
        },
        EVENT,
    ],
    "answers": REPORT_IN["answers"],
    "photos": [PHOTO],
    "deliveries": [
        {
            "id": DELIVERY_ID,
            "endpoint_id": ENDPOINT_ID,
            "sequence": 1,
            "state": "delivered",
            "attempts": 1,
            "last_outcome": "delivered",
            "last_status": 200,
            "reference": "HM-2026-10433",
            "nothing_sent": False,
            "delivered_at": "2026-11-02T08:15:05.310000Z",
            "next_attempt_at": None,
        }
    ],
}

DEPTH = "How deep is it? A golf ball is about 4 cm."
CYCLISTS = "Do cyclists ride over it?"
CATEGORY: dict[str, Any] = {
    "code": "pothole",
    "name": "Pothole",
    "description": "A hole or broken patch in the surface of a road.",
    "tier": "highway",
    "questions": [
        {
            "code": "depth_cm",
            "ask": DEPTH,
            "type": "number",
            "required": False,
            "unit": "cm",
            "least": 0.0,
            "most": 200.0,
            "choices": [],
        },
        {
            "code": "cycle_route",
            "ask": CYCLISTS,
            "type": "yes_no",
            "required": False,
            "unit": None,
            "least": None,
            "most": None,
            "choices": [],
        },
    ],
    "answers_schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Pothole",
        "type": "object",
        "properties": {
            "depth_cm": {
                "title": DEPTH,
                "description": "cm",
                "type": "number",
                "minimum": 0.0,
                "maximum": 200.0,
            },
            "cycle_route": {"title": CYCLISTS, "type": "boolean"},
        },
        "required": [],
        "additionalProperties": False,
    },
}
CATEGORY_LIST: dict[str, Any] = {"version": "5b0c2f1e", "items": [CATEGORY]}

AUTHORITY: dict[str, Any] = {
    "id": AUTHORITY_ID,
    "name": "Hearthmere",
    "codes": [{"scheme": "gss", "code": "D06000001"}],
    "has_active_endpoint": True,
}
AUTHORITY_DETAIL: dict[str, Any] = {**AUTHORITY, "held": 0}
AUTHORITY_PAGE: dict[str, Any] = {"items": [AUTHORITY], "next_cursor": None}

ENDPOINT: dict[str, Any] = {
    "id": ENDPOINT_ID,
    "authority_id": AUTHORITY_ID,
    "channel": "webhook",
    "url": "https://intake.hearthmere.example/reports",
    "config": {},
    "state": "active",
    "fallback": False,
    "events": None,
    "categories": ["pothole", "litter"],
    "verification": {
        "state": "passed",
        "at": "2026-11-02T07:00:02Z",
        "status": 200,
        "error": None,
    },
    "last_test": {
        "state": "failed",
        "at": "2026-11-02T07:10:00Z",
        "status": 500,
        "error": "answered 500",
    },
    "old_secret_until": None,
    "created_at": "2026-11-02T07:00:00Z",
}
ENDPOINT_CREATED: dict[str, Any] = {
    **ENDPOINT,
    "state": "pending",
    "verification": {
        "state": "waiting",
        "at": "2026-11-02T07:00:00Z",
        "status": None,
        "error": None,
    },
    "last_test": None,
    "secret": "whsec_ZXhhbXBsZS1leGFtcGxlLWV4YW1wbGUtZXhhbXBsZS0=",
    "released": 0,
}
ENDPOINT_ROTATED: dict[str, Any] = {
    **ENDPOINT,
    "old_secret_until": "2026-11-04T07:00:00Z",
    "secret": "whsec_YW5vdGhlci1hbm90aGVyLWFub3RoZXItYW5vdGhlci0=",
}
ENDPOINT_LIST: dict[str, Any] = {"items": [ENDPOINT]}

DELIVERY: dict[str, Any] = {
    "id": DELIVERY_ID,
    "report_id": REPORT_ID,
    "endpoint_id": ENDPOINT_ID,
    "sequence": 1,
    "state": "delivered",
    "created_at": "2026-11-02T08:15:04.120000Z",
    "settled_at": "2026-11-02T08:15:05.310000Z",
    "next_attempt_at": None,
    "redelivered_at": None,
    "reference": "HM-2026-10433",
    "attempts": [
        {
            "n": 1,
            "started_at": "2026-11-02T08:15:04.180000Z",
            "finished_at": "2026-11-02T08:15:05.310000Z",
            "outcome": "delivered",
            "status": 200,
            "answer": '{"reference": "HM-2026-10433"}',
            "error": None,
        }
    ],
}
DELIVERY_PAGE: dict[str, Any] = {"items": [DELIVERY], "next_cursor": None}
REDELIVER_IN: dict[str, Any] = {
    "from": "2026-11-02T08:00:00Z",
    "to": "2026-11-02T12:00:00Z",
    "states": ["dead"],
    "endpoint_id": ENDPOINT_ID,
}
REDELIVERED: dict[str, Any] = {"count": 41, "more": False}
ENDPOINT_HEALTH: dict[str, Any] = {
    "waiting": 3,
    "oldest_waiting_at": "2026-11-02T08:15:04.120000Z",
    "delivered_24h": 210,
    "failed_attempts_24h": 14,
    "success_rate_24h": 0.9375,
    "dead": 1,
    "breaker": "open",
    "open_until": "2026-11-02T09:31:00Z",
    "last_delivered_at": "2026-11-02T08:12:41Z",
}
AUDIT: dict[str, Any] = {
    "id": 1207,
    "at": "2026-11-02T12:05:00Z",
    "action": "delivery.redelivered",
    "authority_id": AUTHORITY_ID,
    "target": DELIVERY_ID,
    "detail": {"was": "dead"},
    "api_key_id": "1c2d3e4f-5a6b-4c7d-8e9f-a0b1c2d3e4f5",
    "key_label": "Hearthmere, highways office",
    "key_role": "council",
}
AUDIT_PAGE: dict[str, Any] = {"items": [AUDIT], "next_cursor": None}

NOTICE_PAGE: dict[str, Any] = {
    "items": [
        {
            "id": "9c8b7a6d-5e4f-4a3b-8c2d-1e0f9a8b7c6d",
            "at": "2026-11-02T09:30:00Z",
            "authority_id": AUTHORITY_ID,
            "endpoint_id": ENDPOINT_ID,
            "delivery_id": DELIVERY_ID,
            "kind": "delivery_dead",
            "detail": "given up after 3 attempts; the last: answered 404",
        }
    ],
    "next_cursor": None,
}

HEALTH: dict[str, Any] = {"status": "alive"}
READINESS: dict[str, Any] = {
    "status": "ready",
    "checks": {
        "database": {"ok": True, "detail": "reachable"},
        "schema": {"ok": True, "detail": "current"},
        "dataset": {"ok": True, "detail": "doggerland-1"},
        "delivery": {"ok": True, "detail": "live"},
    },
}
NOT_READY: dict[str, Any] = {
    "status": "not ready",
    "checks": {
        "database": {"ok": True, "detail": "reachable"},
        "schema": {"ok": True, "detail": "current"},
        "dataset": {"ok": False, "detail": "no dataset is active"},
        "delivery": {"ok": True, "detail": "live"},
    },
}

MESSAGE_CREATED: dict[str, Any] = {
    "type": "report.created",
    "schema_version": 1,
    "timestamp": "2026-11-02T08:15:04.120000Z",
    "sequence": 1,
    "data": {
        "report": {
            "id": REPORT_ID,
            "category": "pothole",
            "description": "Deep hole in the left lane, about 40 cm wide.",
            "answers": {"depth_cm": 6.0, "cycle_route": True},
            "lon": 2.12,
            "lat": 54.71,
            "accuracy_m": 8.0,
            "observed_at": "2026-11-02T08:15:00.000000Z",
            "received_at": "2026-11-02T08:15:04.120000Z",
        },
        "authority": {"id": AUTHORITY_ID, "name": "Hearthmere"},
        "decision": {
            name: DECISION[name]
            for name in ("state", "rule", "reason", "question", "candidates", "dataset")
        },
        "photos": [
            {
                "id": PHOTO_ID,
                "url": PHOTO_URL,
                "expires_at": "2026-11-09T08:15:05.000000Z",
                "width": 2048,
                "height": 1536,
                "content_type": "image/jpeg",
            }
        ],
    },
}
MESSAGE_CHALLENGE: dict[str, Any] = {
    "type": "endpoint.challenge",
    "schema_version": 1,
    "timestamp": "2026-11-02T08:00:00.000000Z",
    "sequence": 0,
    "data": {"challenge": "3q2-7wEBAgMEBQYHCAkKCw"},
}
MESSAGE_UPDATED: dict[str, Any] = {
    "type": "report.updated",
    "schema_version": 1,
    "timestamp": "2026-11-02T09:00:00.000000Z",
    "sequence": 2,
    "data": {
        "report": {"id": REPORT_ID},
        "decision": MESSAGE_CREATED["data"]["decision"],
        "photos": MESSAGE_CREATED["data"]["photos"],
    },
}
MESSAGE_WITHDRAWN: dict[str, Any] = {
    "type": "report.withdrawn",
    "schema_version": 1,
    "timestamp": "2026-11-02T09:00:00.000000Z",
    "sequence": 2,
    "data": {
        "report": {"id": REPORT_ID},
        "authority": {"id": AUTHORITY_ID, "name": "Hearthmere"},
        "reason": "the point lies inside Harpoon Bay, and so near to Hearthmere that the position "
        "may be wrong; the reporter says Hearthmere",
    },
}
MESSAGE_TEST: dict[str, Any] = {
    "type": "endpoint.test",
    "schema_version": 1,
    "timestamp": "2026-11-02T08:00:00.000000Z",
    "sequence": 0,
    "data": {},
}
