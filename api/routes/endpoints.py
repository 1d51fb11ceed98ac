"""`/v1/authorities/{id}/endpoints`: an authority's intake, run by itself.

Councils manage their own, operators everybody's. Secrets are shown once, on registration.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Response
from fastapi.openapi.models import Example

from api import db, errors, examples, schemas
from api.auth import Role, require_management, require_role
from api.delivery import egress, outbox, signing
from api.routes.wiring import Calling, Wired, Wiring, json_only
from api.store import authorities, endpoints

router = APIRouter(prefix="/v1/authorities/{authority_id}", tags=["endpoints"])

EXAMPLES: dict[str, Example] = {
    "webhook": {"value": examples.ENDPOINT_IN},
    "open311": {"value": examples.OPEN311_ENDPOINT_IN},
    "mail": {"value": examples.MAIL_ENDPOINT_IN},
}


@router.post(
    "/endpoints",
    operation_id="registerEndpoint",
    summary="Register an intake endpoint",
    status_code=201,
    dependencies=[Depends(json_only)],
    response_description="Registered and active",
    responses={
        201: {
            "headers": {"Location": {"description": "The endpoint.", "schema": {"type": "string"}}}
        },
        **errors.documented(
            errors.MALFORMED_JSON,
            errors.RoleForbidden,
            errors.NotFound,
            errors.EndpointExists,
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
    """Register where an authority takes its reports. What was held for it is sent at once.

    A webhook's requests are signed as Standard Webhooks describes, with the `secret` that is shown
    here once.
    """
    require_management(caller, authority_id)
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
        endpoint = await endpoints.insert_endpoint(
            conn,
            authority_id=authority_id,
            channel=body.channel,
            url=body.url,
            config=body.config.model_dump(mode="json", exclude={"api_key"}, exclude_unset=True),
            secret=wired.vault.seal(signs_with or theirs),
            fallback=body.fallback,
            created_by=caller.key_id,
        )
        if endpoint is None:
            raise errors.EndpointExists(
                "the authority has an active endpoint at this address; delete that one first"
            )
        released = await outbox.release_held(conn, authority_id=authority_id)
    wired.notifier.poke()
    response.headers["Cache-Control"] = "no-store"  # a secret is in it
    response.headers["Location"] = f"/v1/authorities/{authority_id}/endpoints/{endpoint['id']}"
    return schemas.EndpointCreated(**dict(endpoint), secret=signs_with, released=released)


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
    return schemas.EndpointList(items=[schemas.EndpointOut(**dict(row)) for row in rows])


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
        rows = await endpoints.list_endpoints(conn, authority_id)
    for row in rows:
        if row["id"] == endpoint_id:
            return schemas.EndpointOut(**dict(row))
    raise errors.NotFound("the authority has no such endpoint")


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
    wired.notifier.poke()
