"""The audit trail: who did what, whom it is shown to, and that no secret is in it."""

from __future__ import annotations

import secrets
from typing import Any
from uuid import UUID

from api import auth, db
from api.store import audit
from tests.support.app import SHIRE, WEST, Api, slug


async def listed(api: Api, path: str, *, key: str = "operator") -> list[dict[str, Any]]:
    """All entries, by pages of two."""
    entries: list[dict[str, Any]] = []
    cursor = None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await api.get(path, key=key, **query)).json()
        entries += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return entries


async def test_councils_see_theirs_and_operators_all(api: Api) -> None:
    key_id = await api.pool.fetchval("SELECT id FROM api_key WHERE label = 'council'")
    async with db.acquire(api.pool) as conn:
        for code, action in ((WEST, "endpoint.paused"), (SHIRE, "endpoint.rotated")):
            await audit.record(
                conn,
                action,
                api_key_id=key_id,
                authority_id=api.authorities[code],
                target=UUID(int=5),
                detail={"why": "a test"},
            )
    path = f"/v1/authorities/{api.authorities[WEST]}/audit"
    for key in ("council", "operator"):
        entries = await listed(api, path, key=key)
        assert {entry["authority_id"] for entry in entries} == {str(api.authorities[WEST])}
        newest = entries[0]
        assert (newest["action"], newest["target"]) == ("endpoint.paused", str(UUID(int=5)))
        assert (newest["key_label"], newest["key_role"]) == ("council", "council")
        assert newest["detail"] == {"why": "a test"}
    everything = await listed(api, "/v1/audit")
    numbers = [entry["id"] for entry in everything]
    assert numbers == sorted(set(numbers), reverse=True)
    assert [entry["action"] for entry in everything[:2]] == ["endpoint.rotated", "endpoint.paused"]
    for key, where in (
        ("other council", path),
        ("app", path),
        ("council", "/v1/audit"),
        ("app", "/v1/audit"),
    ):
        assert slug(await api.get(where, key=key)) == "forbidden"
    for cursor in ("x", "WzEwMDAwMDAwMDAwMDAwMDAwMDAwMDBd"):  # the latter: [1e22], no bigint
        assert slug(await api.get(path, key="council", cursor=cursor)) == "validation-failed"


async def test_keys(api: Api) -> None:
    async with db.acquire(api.pool) as conn:
        made = await auth.create_key(
            conn,
            role=auth.Role.COUNCIL,
            label="roads office",
            authority_id=api.authorities[WEST],
            random_bytes=secrets.token_bytes,
        )
        for _ in range(2):
            assert await auth.revoke_key(conn, made.id)
        assert not await auth.revoke_key(conn, UUID(int=1))
    entries = await listed(api, f"/v1/authorities/{api.authorities[WEST]}/audit", key="council")
    mine = [entry for entry in entries if entry["target"] == str(made.id)]
    assert [entry["action"] for entry in mine] == ["key.revoked", "key.created"]
    for entry in mine:
        assert entry["detail"] == {"role": "council", "label": "roads office"}
        assert (entry["api_key_id"], entry["key_role"]) == (None, None)
    assert made.secret not in str(entries)


async def test_an_assignment(api: Api) -> None:
    report_id = (await api.post_report()).json()["id"]
    answer = await api.client.post(
        f"/v1/triage/{report_id}/assign",
        json={"authority": SHIRE},
        headers=api.headers("operator"),
    )
    assert answer.status_code == 204
    newest = (await listed(api, f"/v1/authorities/{api.authorities[SHIRE]}/audit"))[0]
    assert (newest["action"], newest["target"]) == ("report.assigned", report_id)
    assert newest["detail"] == {"authority": SHIRE, "from": str(api.authorities[WEST])}
    assert newest["key_role"] == "operator"
