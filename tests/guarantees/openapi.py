"""Writes the API's snapshot and the webhooks' schema: `python -m tests.guarantees.openapi`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from api.app import create_app
from api.settings import Settings
from api.webhook_schemas import json_schema

SNAPSHOT = Path(__file__).with_name("openapi.json")
WEBHOOKS = Path(__file__).parents[2] / "docs" / "webhooks.schema.json"


def describe() -> dict[str, Any]:
    """The description as a client gets it, but for the release that serves it."""
    document: dict[str, Any] = json.loads(json.dumps(create_app(Settings()).openapi()))
    del document["info"]["version"]
    return document


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(describe(), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    WEBHOOKS.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
