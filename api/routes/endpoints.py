"""`/v1/authorities/{id}/endpoints`: an authority's intake, run by itself.

Councils manage their own, operators everybody's. Secrets are shown once, on registration and on
rotation. Whatever changes an endpoint is told in the audit trail by the same transaction; nothing
is sent from here, the worker does that.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Body, Depends, Response
from fastapi.openapi.models import Example

from api import db, errors, examples, schemas
from api.auth import Caller, Role, require_management, require_role
from api.delivery import egress, outbox, signing
from api.routes.wiring import Calling, Wired, Wiring, json_if_any, json_only
from api.store import audit, authorities, endpoints, probes

router = APIRouter(prefix="/v1/authorities/{authority_id}", tags=["endpoints"])

EXAMPLES: dict[str, Example] = {
    "webhook": {"value": examples.ENDPOINT_IN},
    "open311": {"value": examples.OPEN311_ENDPOINT_IN},
    "mail": {"value": examples.MAIL_ENDPOINT_IN},
}
CODE: dict[str, Example] = {"mail": {"value": examples.VERIFY_IN}}
ROTATION: dict[str, Example] = {"a day": {"value": examples.ROTATE_IN}}
DRY_RUN = "dry run: nothing is sent to anybody, this neither"
# 16 letters and digits, which a person can copy out of a mail
CHALLENGE_BYTES = 10
# What every operation on one endpoint may refuse
_ONE = (errors.RoleForbidden, errors.NotFound, errors.VALIDATION_FAILED, *errors.KEYED)
_BODY = (errors.MALFORMED_JSON, errors.BODY_TOO_LARGE, errors.MediaTypeUnsupported)


@router.post(
    "/endpoints",
    operation_id="registerEndpoint",
    summary="Register an intake endpoint",
    status_code=201,
    dependencies=[Depends(json_only)],
    response_description="Registered; pending, unless it is a blackhole",
    responses={
        201: {
            "headers": {"Location": {"description": "The endpoint.", "schema": {"type": "string"}}}
        },
        **errors.documented(
            errors.MALFORMED_JSON,
            errors.RoleForbidden,
            errors.NotFound,
            errors.EndpointExists,
            errors.ChallengedTooOften,
            errors.BODY_TOO_LARGE,
            errors.MediaTypeUnsupported,
            errors.VALIDATION_FAILED,
            *errors.KEYED,
        ),
    },
)
async def register_endpoint(
    authority_id: UUID,
    body: Annotated[schemas.EndpointIn, Body(openapi_examples=EXAMPLES)],
    response: Response,
    wired: Wired,
    caller: Calling,
) -> schemas.EndpointCreated:
    """Register where an authority takes its reports.

    The address is sent a challenge; when that is passed the endpoint is active, and what was held
    for it follows, the oldest first. A webhook's requests are signed as Standard Webhooks
    describes, with the `secret` that is shown here once.
    """
    require_management(caller, authority_id)
    _check_categories(body.categories, wired)
    signs_with, theirs = None, ""
    match body:
        case schemas.WebhookIn():
            _check_url(body.url, wired)
            signs_with = signing.new_secret(wired.random_bytes)
        case schemas.Open311In():
            _check_url(body.url, wired)
            theirs = body.config.api_key.get_secret_value()
        case schemas.MailIn():
            if wired.settings.smtp_host is None:
                raise errors.FieldRefused("channel", "this service has no mail server to send by")
        case schemas.BlackholeIn():
            require_role(caller, Role.OPERATOR)
    async with db.acquire(wired.pool) as conn, conn.transaction():
        if await authorities.find_authority(conn, authority_id) is None:
            raise errors.NotFound("there is no such authority")
        endpoint_id = await endpoints.insert_endpoint(
            conn,
            authority_id=authority_id,
            channel=body.channel,
            url=body.url,
            config=body.config.model_dump(mode="json", exclude={"api_key"}, exclude_unset=True),
            secret=wired.vault.seal(signs_with or theirs),
            fallback=body.fallback,
            events=body.events,
            categories=body.categories,
            state="active" if body.channel == "blackhole" else "pending",
            created_by=caller.key_id,
        )
        if endpoint_id is None:
            raise errors.EndpointExists(
                "the authority has an endpoint at this address; verify it, resume it, or delete it"
            )
        released = 0
        if body.channel == "blackhole":
            released = await outbox.release_held(conn, authority_id=authority_id)
        else:
            await _ask_challenge(conn, wired, authority_id, endpoint_id)
        await audit.record(
            conn,
            "endpoint.registered",
            api_key_id=caller.key_id,
            authority_id=authority_id,
            target=endpoint_id,
            detail={"channel": body.channel, "url": body.url},
        )
        shown = await _show(conn, wired, authority_id, endpoint_id)
    wired.notifier.poke()
    response.headers["Cache-Control"] = "no-store"  # a secret is in it
    response.headers["Location"] = f"/v1/authorities/{authority_id}/endpoints/{endpoint_id}"
    return schemas.EndpointCreated(**dict(shown), secret=signs_with, released=released)


async def _ask_challenge(
    conn: asyncpg.Connection, wired: Wiring, authority_id: UUID, endpoint_id: UUID
) -> None:
    wait_s = await probes.challenge_in(conn, authority_id=authority_id, endpoint_id=endpoint_id)
    if wait_s > 0:
        raise errors.ChallengedTooOften(
            f"an endpoint is sent one a minute, {probes.CHALLENGES_A_DAY} a day, and all of an "
            f"authority's {probes.CHALLENGES_A_DAY_OF_AUTHORITY} a day; see Retry-After",
            retry_after_s=wait_s,
        )
    text = base64.b32encode(wired.random_bytes(CHALLENGE_BYTES)).decode()
    await probes.ask(conn, endpoint_id, "challenge", text=text)


def _check_categories(codes: list[str] | None, wired: Wiring) -> None:
    known = wired.live.rules.categories
    for n, code in enumerate(codes or ()):
        if code not in known:
            raise errors.FieldRefused(f"categories.{n}", "is not one of GET /v1/categories")


def _check_url(url: str, wired: Wiring) -> None:
    try:
        egress.check_url(url, allow=wired.settings.egress_allow)
    except egress.EgressRefused as refused:
        raise errors.FieldRefused("url", str(refused)) from None


@router.get(
    "/endpoints",
    operation_id="listEndpoints",
    summary="An authority's endpoints",
    responses=errors.documented(errors.RoleForbidden, errors.VALIDATION_FAILED, *errors.KEYED),
)
async def list_endpoints(authority_id: UUID, wired: Wired, caller: Calling) -> schemas.EndpointList:
    """List the endpoints that are not deleted, the oldest first."""
    require_management(caller, authority_id)
    async with db.acquire(wired.pool) as conn:
        rows = await endpoints.list_endpoints(conn, authority_id)
    return schemas.EndpointList(items=[_shape(row, wired) for row in rows])


def _shape(row: asyncpg.Record, wired: Wiring) -> schemas.EndpointOut:
    shown = dict(row)
    for name in ("verification", "last_test"):
        probe = shown[name]
        if probe and probe["state"] == "waiting" and wired.settings.dry_run:
            shown[name] = {**probe, "error": DRY_RUN}
    return schemas.EndpointOut(**shown)


async def _show(
    conn: asyncpg.Connection, wired: Wiring, authority_id: UUID, endpoint_id: UUID
) -> schemas.EndpointOut:
    for row in await endpoints.list_endpoints(conn, authority_id, endpoint_id):
        return _shape(row, wired)
    raise errors.NotFound("the authority has no such endpoint")


@router.get(
    "/endpoints/{endpoint_id}",
    operation_id="getEndpoint",
    summary="One endpoint",
    responses=errors.documented(
        errors.RoleForbidden, errors.NotFound, errors.VALIDATION_FAILED, *errors.KEYED
    ),
)
async def get_endpoint(
    authority_id: UUID, endpoint_id: UUID, wired: Wired, caller: Calling
) -> schemas.EndpointOut:
    """Show one endpoint that is not deleted."""
    require_management(caller, authority_id)
    async with db.acquire(wired.pool) as conn:
        return await _show(conn, wired, authority_id, endpoint_id)


@router.delete(
    "/endpoints/{endpoint_id}",
    operation_id="deleteEndpoint",
    summary="Delete an endpoint",
    status_code=204,
    responses=errors.documented(
        errors.RoleForbidden, errors.NotFound, errors.VALIDATION_FAILED, *errors.KEYED
    ),
)
async def delete_endpoint(
    authority_id: UUID, endpoint_id: UUID, wired: Wired, caller: Calling
) -> None:
    """Delete an endpoint. What it was still owed goes to the others, or is held; none is lost."""
    require_management(caller, authority_id)
    async with db.acquire(wired.pool) as conn, conn.transaction():
        deleted = await endpoints.delete_endpoint(
            conn, authority_id=authority_id, endpoint_id=endpoint_id
        )
        if not deleted:
            raise errors.NotFound("the authority has no such endpoint")
        # Endpoints registered later were owed none of what waited at this one.
        await outbox.release_held(conn, authority_id=authority_id)
        await audit.record(
            conn,
            "endpoint.deleted",
            api_key_id=caller.key_id,
            authority_id=authority_id,
            target=endpoint_id,
        )
    wired.notifier.poke()


# --- the life of one endpoint ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Locked:
    """An endpoint in hand: nobody else changes it before the transaction ends."""

    conn: asyncpg.Connection
    wired: Wiring
    caller: Caller
    row: asyncpg.Record

    async def record(self, action: str, detail: dict[str, Any] | None = None) -> None:
        await audit.record(
            self.conn,
            action,
            api_key_id=self.caller.key_id,
            authority_id=self.row["authority_id"],
            target=self.row["id"],
            detail=detail,
        )

    def require(self, *states: str, remedy: str) -> None:
        if self.row["state"] not in states:
            raise errors.EndpointUnfit(f"the endpoint is {self.row['state']}; {remedy}")

    async def show(self) -> schemas.EndpointOut:
        return await _show(self.conn, self.wired, self.row["authority_id"], self.row["id"])


@asynccontextmanager
async def _locked(
    authority_id: UUID, endpoint_id: UUID, wired: Wiring, caller: Caller
) -> AsyncIterator[_Locked]:
    require_management(caller, authority_id)
    async with db.acquire(wired.pool) as conn, conn.transaction():
        row = await endpoints.lock_endpoint(
            conn, authority_id=authority_id, endpoint_id=endpoint_id
        )
        if row is None:
            raise errors.NotFound("the authority has no such endpoint")
        yield _Locked(conn, wired, caller, row)


@router.patch(
    "/endpoints/{endpoint_id}",
    operation_id="changeEndpoint",
    summary="Change what an endpoint is sent",
    dependencies=[Depends(json_only)],
    responses=errors.documented(*_ONE, *_BODY),
)
async def change_endpoint(
    authority_id: UUID,
    endpoint_id: UUID,
    body: schemas.EndpointChange,
    wired: Wired,
    caller: Calling,
) -> schemas.EndpointOut:
    """Change the fields that are given.

    What the endpoint is owed already it stays owed; what is held and wanted now follows by itself.
    """
    given = body.model_fields_set
    _check_categories(body.categories, wired)
    async with _locked(authority_id, endpoint_id, wired, caller) as endpoint:
        row = endpoint.row
        config, secret = row["config"], row["secret"]
        if body.config is not None:
            if row["channel"] != "open311":
                raise errors.FieldRefused("config", "this channel has none")
            config = body.config.model_dump(mode="json", exclude={"api_key"}, exclude_unset=True)
            if body.config.api_key is not None:
                secret = wired.vault.seal(body.config.api_key.get_secret_value())
        changed = {
            name: getattr(body, name) if name in given else row[name]
            for name in ("events", "categories", "fallback")
        }
        await endpoints.change_endpoint(
            endpoint.conn, endpoint_id, **changed, config=config, secret=secret
        )
        told = body.model_dump(mode="json", include=given, exclude={"config": {"api_key"}})
        await endpoint.record("endpoint.changed", told)
        shown = await endpoint.show()
    wired.notifier.poke()
    return shown


@router.post(
    "/endpoints/{endpoint_id}/verify",
    operation_id="verifyEndpoint",
    summary="Have the challenge sent again, or give the mailed code",
    status_code=202,
    response_description="The challenge is sent again",
    dependencies=[Depends(json_if_any)],
    responses={
        200: {"model": schemas.EndpointOut, "description": "The code is right: active"},
        **errors.documented(errors.EndpointUnfit, errors.ChallengedTooOften, *_ONE, *_BODY),
    },
)
async def verify_endpoint(
    authority_id: UUID,
    endpoint_id: UUID,
    wired: Wired,
    caller: Calling,
    response: Response,
    body: Annotated[schemas.VerifyIn | None, Body(openapi_examples=CODE)] = None,
) -> schemas.EndpointOut:
    """Have a pending or suspended endpoint sent a new challenge, in place of the one before.

    At most once a minute and ten times a day.
    With the `code` that was mailed to it, a mail endpoint is active at once (200).
    """
    async with _locked(authority_id, endpoint_id, wired, caller) as endpoint:
        endpoint.require("pending", "suspended", remedy="only pending and suspended ones need this")
        if body is None:
            await _ask_challenge(endpoint.conn, wired, authority_id, endpoint_id)
            await endpoint.record("endpoint.challenged")
        else:
            if endpoint.row["channel"] != "mail":
                raise errors.FieldRefused("code", "goes with mail endpoints only")
            if not await probes.take_code(
                endpoint.conn, endpoint_id, body.code, api_key_id=caller.key_id
            ):
                raise errors.FieldRefused(
                    "code",
                    "is not the one that was mailed last, or is older than 24 hours; "
                    "without a body this has another one mailed",
                )
            response.status_code = 200
        shown = await endpoint.show()
    wired.notifier.poke()
    return shown


@router.post(
    "/endpoints/{endpoint_id}/pause",
    operation_id="pauseEndpoint",
    summary="Send nothing for a while",
    responses=errors.documented(errors.EndpointUnfit, *_ONE),
)
async def pause_endpoint(
    authority_id: UUID, endpoint_id: UUID, wired: Wired, caller: Calling
) -> schemas.EndpointOut:
    """Pause an endpoint. It stays owed its reports, which wait until it is resumed.

    What is being sent at this moment ends. A paused one stays as it is.
    """
    async with _locked(authority_id, endpoint_id, wired, caller) as endpoint:
        endpoint.require("active", "paused", remedy="only an active one can be paused")
        if endpoint.row["state"] == "active":
            await endpoints.pause_endpoint(endpoint.conn, endpoint_id)
            await endpoint.record("endpoint.paused")
        return await endpoint.show()


@router.post(
    "/endpoints/{endpoint_id}/resume",
    operation_id="resumeEndpoint",
    summary="Go on sending",
    responses=errors.documented(errors.EndpointUnfit, *_ONE),
)
async def resume_endpoint(
    authority_id: UUID, endpoint_id: UUID, wired: Wired, caller: Calling
) -> schemas.EndpointOut:
    """Resume a paused endpoint. What has waited is sent, the oldest first."""
    async with _locked(authority_id, endpoint_id, wired, caller) as endpoint:
        endpoint.require("active", "paused", remedy="have it verified instead")
        if endpoint.row["state"] == "paused":
            await endpoints.resume_endpoint(endpoint.conn, endpoint_id)
            await endpoint.record("endpoint.resumed")
        shown = await endpoint.show()
    wired.notifier.poke()
    return shown


@router.post(
    "/endpoints/{endpoint_id}/rotate",
    operation_id="rotateSecret",
    summary="Give a webhook a new secret",
    dependencies=[Depends(json_if_any)],
    responses=errors.documented(errors.EndpointUnfit, *_ONE, *_BODY),
)
async def rotate_secret(
    authority_id: UUID,
    endpoint_id: UUID,
    wired: Wired,
    caller: Calling,
    response: Response,
    body: Annotated[schemas.RotateIn | None, Body(openapi_examples=ROTATION)] = None,
) -> schemas.EndpointRotated:
    """Sign with a new secret, which is shown here once, and for a while with the old one too.

    Rotated again meanwhile, the oldest of the three signs no longer.
    """
    hours = (body or schemas.RotateIn()).old_secret_for_hours
    secret = signing.new_secret(wired.random_bytes)
    async with _locked(authority_id, endpoint_id, wired, caller) as endpoint:
        if endpoint.row["channel"] != "webhook":
            raise errors.EndpointUnfit("only what is sent to webhooks is signed")
        await endpoints.rotate_secret(
            endpoint.conn, endpoint_id, secret=wired.vault.seal(secret), old_for_s=hours * 3600.0
        )
        await endpoint.record("endpoint.secret_rotated", {"old_secret_for_hours": hours})
        shown = await endpoint.show()
    response.headers["Cache-Control"] = "no-store"
    return schemas.EndpointRotated(**dict(shown), secret=secret)


@router.post(
    "/endpoints/{endpoint_id}/test",
    operation_id="testEndpoint",
    summary="Have a test message sent",
    status_code=202,
    response_description="It will be sent; `last_test` tells how it went",
    responses=errors.documented(errors.EndpointUnfit, *_ONE),
)
async def test_endpoint(
    authority_id: UUID, endpoint_id: UUID, wired: Wired, caller: Calling
) -> schemas.EndpointOut:
    """Have a message that is no report sent once, in place of a test that still waits."""
    async with _locked(authority_id, endpoint_id, wired, caller) as endpoint:
        endpoint.require("active", "paused", remedy="have it verified instead")
        await probes.ask(endpoint.conn, endpoint_id, "test")
        await endpoint.record("endpoint.tested")
        return await endpoint.show()
