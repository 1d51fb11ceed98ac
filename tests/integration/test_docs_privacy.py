"""docs/privacy.md says of every column what it is for, or it is listed here as technical."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg

from api.settings import Settings

PRIVACY = Path(__file__).parents[2] / "docs" / "privacy.md"

# Of bodies, datasets and the machinery: nothing that a citizen has said or done.
TECHNICAL_TABLES = {
    "activation",
    "attempt_count",
    "authority",
    "authority_code",
    "dataset",
    "endpoint_probe",
    "held",
    "reroute",
    "schema_migration",
    "signing_key",
    "succession",
    "triage",
}
# Columns that only say which row it is, whose, when, and how far the machinery has come with it.
TECHNICAL = {
    "api_key": "id secret_sha256 role authority_id created_at expires_at revoked_at "
    "address_limited",
    "attempt": "delivery_id n started_at finished_at outcome status unsure logged nothing_sent",
    "audit": "id authority_id",
    "delivery": "id report_id endpoint_id state due_at attempts lease_token created_at settled_at "
    "leased_by sequence nothing_sent redelivered_at redelivered_after owed_at",
    "endpoint": "id authority_id channel secret state created_at created_by ended_at fallback "
    "failures open_until events categories old_secret old_secret_until",
    "follower": "id report_id",
    "idempotency": "api_key_id report_id created_at",
    "notice": "id at authority_id endpoint_id delivery_id kind",
    "photo": "api_key_id length received created_at expires_at stored_at attached_at",
    "photo_part": "photo_id at",
    "rate_count": "n hits expires_at",
    "report": "id api_key_id dataset_id authority_id held_on_receipt",
    "report_event": "report_id n at kind authority_id previous_hash hash",
    "report_trace": "report_id",
    "service_request": "delivery_id token state seen since answered_at failures next_poll_at",
}


async def test_every_column_is_described_or_technical(pool: asyncpg.Pool) -> None:
    described = set()
    for line in PRIVACY.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            named = re.findall(r"`([a-z_]+\.[a-z_0-9]+)`", line.split("|")[1])
            assert not described & set(named), "one column, one place"
            described |= set(named)
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert not named or (len(cells) == 4 and all(cells))
    technical = {f"{table}.{one}" for table, names in TECHNICAL.items() for one in names.split()}
    rows = await pool.fetch(
        """
        SELECT relname || '.' || attname AS name
        FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
          AND attnum > 0 AND NOT attisdropped AND relname <> ALL ($1::text[])
        """,
        list(TECHNICAL_TABLES),
    )
    columns = {row["name"] for row in rows}
    assert columns - described - technical == set(), "say in docs/privacy.md what these are for"
    assert (described | technical) - columns == set(), "these are gone"
    assert described & technical == set()


def test_every_retention_is_described_as_it_is() -> None:
    said = dict(
        re.findall(r"`GEOROUTER_(RETAIN_[A-Z_]+)` \((\d+)\)", PRIVACY.read_text(encoding="utf-8"))
    )
    assert said == {
        name.upper(): str(field.default)
        for name, field in Settings.model_fields.items()
        if name.startswith("retain_")
    }
