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
_TRACK = "/v1/track/dHdvLXRpbWVzLXNpeHRlZW4tYnl0ZXMtYXMtc2VjcmU"
_TRACK_TOO = "/v1/track/YW5vdGhlci1saW5rLWZvci1hbm90aGVyLXBlcnNvbi4"
PHOTO_ID = "b1f7c3d2-4a5e-4f60-8a9b-7c6d5e4f3a2b"
PHOTO_URL = (
    f"https://georouter.example/v1/photos/{PHOTO_ID}/file"
    "?expires=1794212105&signature=J4mGqM0r1mXH2Yw5lRkq7o2dV8s9TtBzNcPfEuWaKbI"
)

CONTACT: dict[str, Any] = {
    "name": "Jo Field",
    "email": "jo@example.org",
    "phone": "+442079460000",
    "share_with_council": True,
    "notify": True,
}
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
    "contact": CONTACT,
    "duplicate_of": None,
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
    "reports": 1,
    "duplicate_of": None,
    "status": None,
    "links": {"self": f"/v1/reports/{REPORT_ID}", "track": _TRACK},
}
POSTED: dict[str, Any] = {**RECEIPT, "emergencies": []}
JOINED: dict[str, Any] = {
    **POSTED,
    "received_at": "2026-11-05T07:40:11.900000Z",
    "forwarding": "joined",
    "message": "Received. This report is with Hearthmere already; with yours there are 2 of it. "
    "Hearthmere said last: planned.",
    "reports": 2,
    "duplicate_of": REPORT_ID,
    "status": "planned",
    "links": {"self": f"/v1/reports/{REPORT_ID}", "track": _TRACK_TOO},
}
BATCH_IN: dict[str, Any] = {
    "items": [
        {"idempotency_key": "6f1e1f2c-draft-1", "report": REPORT_IN},
        {
            "idempotency_key": "6f1e1f2c-draft-2",
            "report": {**REPORT_IN, "contact": None, "duplicate_of": REPORT_ID},
        },
        {"idempotency_key": "6f1e1f2c-draft-3", "report": {**REPORT_IN, "category": "meteor"}},
    ]
}
BATCH_OUT: dict[str, Any] = {
    "items": [
        {"status": 201, "replayed": True, "receipt": POSTED, "problem": None},
        {"status": 201, "replayed": False, "receipt": JOINED, "problem": None},
        {
            "status": 422,
            "replayed": False,
            "receipt": None,
            "problem": {
                "type": "urn:georouter:problem:unknown-category",
                "title": "The category is not known",
                "status": 422,
                "detail": "meteor is not one of the known categories",
            },
        },
    ]
}
TRACK_TOKEN = _TRACK.removeprefix("/v1/track/")
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
    "reports": None,
    "message": None,
    "outcome": None,
    "status": None,
    "started_at": None,
    "finished_at": None,
}
ATTEMPT: dict[str, Any] = {
    **dict.fromkeys(EVENT),
    "n": 2,
    "at": "2026-11-02T08:15:06.020000Z",
    "kind": "attempted",
    "authority": "Hearthmere",
    "message": "Sent to Hearthmere: taken (answer 200), their number HM-2026-10433",
    "reference": "HM-2026-10433",
    "outcome": "delivered",
    "status": 200,
    "started_at": "2026-11-02T08:15:04.180000Z",
    "finished_at": "2026-11-02T08:15:05.310000Z",
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
NEARBY: dict[str, Any] = {
    "items": [
        {
            "id": REPORT_ID,
            "lon": 2.12,
            "lat": 54.71,
            "distance_m": 12.4,
            "received_at": "2026-11-02T08:15:04.120000Z",
            "age_days": 3,
            "reports": 2,
            "status": "planned",
            "description": "Deep hole in the left lane, about 40 cm wide.",
        }
    ]
}
REPORT_COLLECTION: dict[str, Any] = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "id": REPORT_ID,
            "geometry": {"type": "Point", "coordinates": [2.12, 54.71]},
            "properties": {
                "category": "pothole",
                "authority": "Hearthmere",
                "authority_code": "D06000001",
                "state": "open",
                "status": "planned",
                "description": "Deep hole in the left lane, about 40 cm wide.",
                "reports": 2,
                "received_at": "2026-11-02T08:15:04.120000Z",
                "updated_at": "2026-11-03T10:00:00Z",
            },
        }
    ],
    "next_cursor": None,
}

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
    "links": {"self": f"/v1/reports/{REPORT_ID}", "track": None},
    "state": "forwarded",
    "current": DECISION,
    "status": "planned",
    "events": [
        {
            **dict.fromkeys(EVENT),
            "n": 1,
            "at": "2026-11-02T08:15:04.120000Z",
            "kind": "received",
            "authority": "Hearthmere",
        },
        ATTEMPT,
        {**EVENT, "n": 3},
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
    "emergencies": [
        {
            "text": "If somebody may be hurt before this is mended, call 999 now.",
            "phone": "999",
            "when": {
                "anyOf": [
                    {
                        "properties": {"depth_cm": {"type": "number", "minimum": 100.0}},
                        "required": ["depth_cm"],
                    }
                ]
            },
        }
    ],
}
CATEGORY_LIST: dict[str, Any] = {"version": "5b0c2f1e", "items": [CATEGORY]}

DATASET: dict[str, Any] = {
    "version": "doggerland-1",
    "since": "2026-11-01T00:00:00Z",
    "layers": [{"name": "highway", "areas": 6}, {"name": "district", "areas": 9}],
    "sources": [
        {
            "layer": layer,
            "title": "Authorities of Doggerland",
            "publisher": "Doggerland Survey",
            "edition": "October 2026",
            "licence": "OGL-UK-3.0",
            "attribution": "Contains Doggerland Survey data (2026).",
        }
        for layer in ("highway", "district")
    ],
}

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

HIDE_IN: dict[str, Any] = {"reason": "personal_data"}
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
            "spam_suspected": [],
        },
        "authority": {"id": AUTHORITY_ID, "name": "Hearthmere"},
        "decision": {
            name: DECISION[name]
            for name in ("state", "rule", "reason", "question", "candidates", "dataset")
        },
        "contact": {name: CONTACT[name] for name in ("name", "email", "phone")},
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
        "reports": 3,
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

SIGNING_KEYS: dict[str, Any] = {
    "items": [
        {
            "public_key": "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
            "created_at": "2026-11-02T08:00:00.000000Z",
            "retired_at": None,
        }
    ]
}
_HEARTHMERE = {"id": AUTHORITY_ID, "name": "Hearthmere"}
_CERTIFIED: dict[str, Any] = {
    "authority": _HEARTHMERE,
    **{name: DECISION[name] for name in ("state", "rule", "reason", "dataset", "rules", "as_of")},
}
# Signed with the key of 32 zero bytes, so that it can be verified and nothing else can.
CERTIFICATE: dict[str, Any] = {
    "certificate": "georouter certificate 1",
    "proves": (
        "The operator of this service states, under its signature, "
        "that it received this report and did with it what the even"
        "ts say, at these times by its own clock. The chain of hash"
        "es shows that no event was changed, removed or put in betw"
        "een afterwards, as compared with any certificate issued ea"
        "rlier. It does not show that the clock was right, that the"
        " defect was there, or that anybody at the authority read t"
        "he report."
    ),
    "issued_at": "2026-11-20T09:00:00.000000Z",
    "report": {
        "id": "3f0e6f6e-2f0c-4b7e-9d1a-5a2a86a7f0c1",
        "category": "pothole",
        "place": {
            "lon": 2.12,
            "lat": 54.71,
            "accuracy_m": 8.0,
        },
        "received_at": "2026-11-02T08:15:04.120000Z",
        "observed_at": "2026-11-02T08:15:00.000000Z",
        "description": "Deep hole in the left lane, about 40 cm wide.",
        "description_sha256": ("6cf0091b693576ebf8a488ed2e689f5ce56171205a1d65d2d80e4044536e2b50"),
        "answers": {
            "depth_cm": 6.0,
            "cycle_route": True,
        },
    },
    "content": {
        "hashed": (
            "georouter content 1\n"
            "report 3f0e6f6e-2f0c-4b7e-9d1a-5a2a86a7f0c1\n"
            "salt 6f1d2c3b-4a59-4687-9786-a5b4c3d2e1f0\n"
            'category "pothole"\n'
            "lon 2.1200000\n"
            "lat 54.7100000\n"
            "observed 2026-11-02T08:15:00.000000Z\n"
            'answers {"depth_cm": 6.0, "cycle_route": true}\n'
            'description "Deep hole in the left lane, about 40 cm wide.'
            '"'
        ),
        "sha256": ("f96cd6dd276ffc08e84baaa1750cf776be85391682d827fdecec78775151c246"),
    },
    "decision": _CERTIFIED,
    "decision_on_receipt": _CERTIFIED,
    "accepted": [
        {
            "at": "2026-11-02T08:15:05.310000Z",
            "event": 2,
            "authority": _HEARTHMERE,
            "channel": "webhook",
            "status": 200,
            "answer_sha256": ("0961a2ffd4277aa6efaa5167add151302e9ae20e4819e97249cb86aae9ebed05"),
            "reference": "HM-2026-10433",
        },
    ],
    "attempts": [
        {
            "event": 2,
            "authority": _HEARTHMERE,
            "delivery": "0b9a8c7d-6e5f-4c3d-b2a1-0f1e2d3c4b5a",
            "sequence": 1,
            "n": 1,
            "endpoint": "5d6c7b8a-9f0e-4d1c-a2b3-c4d5e6f70819",
            "channel": "webhook",
            "started_at": "2026-11-02T08:15:04.180000Z",
            "finished_at": "2026-11-02T08:15:05.310000Z",
            "outcome": "delivered",
            "status": 200,
            "answer_sha256": ("0961a2ffd4277aa6efaa5167add151302e9ae20e4819e97249cb86aae9ebed05"),
            "reference": "HM-2026-10433",
            "unsure": False,
            "nothing_sent": False,
        },
    ],
    "under_way": 0,
    "events": [
        {
            "n": 1,
            "at": "2026-11-02T08:15:04.120000Z",
            "kind": "received",
            "authority": _HEARTHMERE,
            "key": None,
            "detail": {
                "content_sha256": (
                    "f96cd6dd276ffc08e84baaa1750cf776be85391682d827fdecec78775151c246"
                ),
            },
            "hashed": (
                "georouter event 1\n"
                "report 3f0e6f6e-2f0c-4b7e-9d1a-5a2a86a7f0c1\n"
                "n 1\n"
                "at 2026-11-02T08:15:04.120000Z\n"
                "kind received\n"
                "authority 8a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d\n"
                "key -\n"
                'detail {"content_sha256": "f96cd6dd276ffc08e84baaa1750cf77'
                '6be85391682d827fdecec78775151c246"}\n'
                "previous -"
            ),
            "hash": ("bf5fcc57af91e124b6c3a96e34313eb9b93e4f87326c8fb33ec91c0d14389139"),
        },
        {
            "n": 2,
            "at": "2026-11-02T08:15:06.020000Z",
            "kind": "attempted",
            "authority": _HEARTHMERE,
            "key": "attempt:0b9a8c7d-6e5f-4c3d-b2a1-0f1e2d3c4b5a:1:delivered",
            "detail": {
                "n": 1,
                "status": 200,
                "channel": "webhook",
                "outcome": "delivered",
                "delivery": "0b9a8c7d-6e5f-4c3d-b2a1-0f1e2d3c4b5a",
                "endpoint": "5d6c7b8a-9f0e-4d1c-a2b3-c4d5e6f70819",
                "sequence": 1,
                "reference": "HM-2026-10433",
                "started_at": "2026-11-02T08:15:04.180000Z",
                "finished_at": "2026-11-02T08:15:05.310000Z",
                "answer_sha256": (
                    "0961a2ffd4277aa6efaa5167add151302e9ae20e4819e97249cb86aae9ebed05"
                ),
            },
            "hashed": (
                "georouter event 1\n"
                "report 3f0e6f6e-2f0c-4b7e-9d1a-5a2a86a7f0c1\n"
                "n 2\n"
                "at 2026-11-02T08:15:06.020000Z\n"
                "kind attempted\n"
                "authority 8a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d\n"
                'key "attempt:0b9a8c7d-6e5f-4c3d-b2a1-0f1e2d3c4b5a:1:delive'
                'red"\n'
                'detail {"n": 1, "status": 200, "channel": "webhook", "outc'
                'ome": "delivered", "delivery": "0b9a8c7d-6e5f-4c3d-b2a1-0f'
                '1e2d3c4b5a", "endpoint": "5d6c7b8a-9f0e-4d1c-a2b3-c4d5e6f7'
                '0819", "sequence": 1, "reference": "HM-2026-10433", "start'
                'ed_at": "2026-11-02T08:15:04.180000Z", "finished_at": "202'
                '6-11-02T08:15:05.310000Z", "answer_sha256": "0961a2ffd4277'
                'aa6efaa5167add151302e9ae20e4819e97249cb86aae9ebed05"}\n'
                "previous bf5fcc57af91e124b6c3a96e34313eb9b93e4f87326c8fb33"
                "ec91c0d14389139"
            ),
            "hash": ("3192dc43f35704ca248477737ba92a0316d8e93c8c14a2f02adbe4ac088f1888"),
        },
    ],
    "head": ("3192dc43f35704ca248477737ba92a0316d8e93c8c14a2f02adbe4ac088f1888"),
    "signature": {
        "algorithm": "Ed25519",
        "public_key": ("3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"),
        "value": (
            "a9e8aa3fe83495b731169eb1c7cb945b9a1dc4a6dddc40b1e8dbd8d6a1"
            "5317b9ab4a927d00f2f8760a6f7f67175e54384a539dc56c8eeec301c0"
            "cb272ae7b809"
        ),
    },
}

TRACK_EVENT: dict[str, Any] = {
    "n": 3,
    "at": "2026-11-03T09:30:00Z",
    "kind": "status",
    "sentence": "Hearthmere has planned the work. It should be done by 13 November 2026.",
    "authority": "Hearthmere",
    "state": "planned",
    "reason": None,
    "note": "Marked for repair in the coming week.",
    "reference": None,
    "expected_on": "2026-11-13",
}
TRACK: dict[str, Any] = {
    "report_id": REPORT_ID,
    "received_at": "2026-11-02T08:15:04.120000Z",
    "category": "pothole",
    "description": "Deep hole in the cycle lane, just before the junction.",
    "headline": TRACK_EVENT["sentence"],
    "state": "forwarded",
    "status": "planned",
    "authority": {"id": AUTHORITY_ID, "name": "Hearthmere"},
    "why": "the point lies inside Hearthmere",
    "reference": "HM-2026-10433",
    "expected_on": "2026-11-13",
    "reports": 2,
    "dry_run": False,
    "can_say_still_there": False,
    "mail": "on",
    "events": [TRACK_EVENT],
    "links": {
        "self": f"/v1/track/{TRACK_TOKEN}",
        "events": f"/v1/track/{TRACK_TOKEN}/events",
        "still_there": f"/v1/track/{TRACK_TOKEN}/still-there",
        "unsubscribe": f"/v1/track/{TRACK_TOKEN}/unsubscribe",
    },
}
EVENTS: dict[str, Any] = {"items": [EVENT], "last": 2}
TRACK_EVENTS: dict[str, Any] = {"items": [TRACK_EVENT], "last": 3}
