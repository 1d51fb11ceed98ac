"""Keys that have ended, and a service that lacks its dataset or its database."""

from __future__ import annotations

import pytest

from tests.support.app import Api, slug

NOTHING = {"report": 0, "idempotency": 0, "held": 0, "delivery": 0, "endpoint": 0}


async def test_revoked_and_expired_keys_say_which(api: Api) -> None:
    await api.pool.execute("UPDATE api_key SET expires_at = now() WHERE label = 'app'")
    await api.pool.execute("UPDATE api_key SET revoked_at = now() WHERE label = 'other app'")
    expired = await api.post_report()
    revoked = await api.post_report(key="other app")
    assert (expired.status_code, slug(expired)) == (401, "key-expired")
    assert (revoked.status_code, slug(revoked)) == (401, "key-revoked")
    details = {expired.json()["detail"], revoked.json()["detail"]}
    assert len(details) == 2
    assert await api.rows() == NOTHING


async def test_without_a_dataset_nothing_is_routed_or_stored(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.app.state.wiring.live, "current", None)
    monkeypatch.setattr(api.app.state.wiring.live, "refresh", None)
    response = await api.post_report(idempotency_key="k")
    assert (response.status_code, slug(response)) == (503, "no-active-dataset")
    assert "georouter boundaries activate" in response.json()["detail"]
    assert response.headers["retry-after"]
    assert await api.rows() == NOTHING


async def test_a_database_that_goes_away_is_a_503(api: Api) -> None:
    await api.app.state.wiring.pool.close()
    response = await api.post_report(idempotency_key="k")
    assert (response.status_code, slug(response)) == (503, "database-unavailable")
    assert response.headers["retry-after"]
    assert response.json()["correlation_id"] == response.headers["x-request-id"]
    assert await api.rows() == NOTHING
