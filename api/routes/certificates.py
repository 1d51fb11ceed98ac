"""`.../certificate` of a report, as JSON or PDF, and `/keys`, which sign certificates."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import APIRouter, Header, Response

from api import certificate_page, certificates, db, errors, evidence, schemas
from api.auth import Caller
from api.routes.wiring import Calling, Wired, Wiring
from api.store import evidence as log

router = APIRouter(tags=["evidence"])

PDF: Final = "application/pdf"
PDF_CONTENT: Final[dict[str, Any]] = {
    PDF: {
        "schema": {"type": "string", "contentMediaType": PDF},
        "example": "%PDF-1.4 ...",
    }
}
REFUSALS = errors.documented(
    errors.NotFound, errors.VALIDATION_FAILED, errors.SigningKeyUnreadable, *errors.KEYED
)


@router.get(
    "/v1/reports/{report_id}/certificate",
    operation_id="getCertificate",
    summary="Certify when a report was received and accepted",
    response_class=Response,
    response_description="The certificate, as a file",
    responses={
        200: {"model": schemas.Certificate, "content": PDF_CONTENT},
        **REFUSALS,
    },
)
async def get_certificate(
    report_id: UUID,
    wired: Wired,
    caller: Calling,
    accept: Annotated[
        str, Header(description="`application/pdf` for one page to print; JSON otherwise.")
    ] = "",
) -> Response:
    """Certify what became of a report: received, tried, accepted, when and with what answer.

    Signed, with every event and its hash, so that anybody can verify it. For those who may read the
    report.
    """
    document, key = await _issue(report_id, wired, caller)
    if PDF in accept:
        return await _page(document, key)
    return _file(evidence.encode(document), "application/json", report_id, "json")


@router.get(
    "/v1/reports/{report_id}/certificate.pdf",
    operation_id="getCertificatePage",
    summary="The same as one page to print",
    response_class=Response,
    response_description="The page, with the certificate attached to it",
    responses={200: {"content": PDF_CONTENT}, **REFUSALS},
)
async def get_certificate_page(report_id: UUID, wired: Wired, caller: Calling) -> Response:
    """Certify what became of a report on one page, which has the whole certificate attached."""
    document, key = await _issue(report_id, wired, caller)
    return await _page(document, key)


@router.get(
    "/keys",
    operation_id="getSigningKeys",
    summary="The keys that certificates are signed with",
)
async def get_signing_keys(wired: Wired) -> schemas.SigningKeys:
    """List the public keys, old ones too, for anybody who holds a certificate."""
    async with db.acquire(wired.pool) as conn:
        found = await certificates.signing_keys(conn)
    return schemas.SigningKeys(items=[schemas.SigningKey(**one) for one in found])


async def _issue(
    report_id: UUID, wired: Wiring, caller: Caller
) -> tuple[dict[str, Any], Ed25519PrivateKey]:
    async with db.acquire(wired.pool) as conn, conn.transaction():
        report = await log.lock_report(conn, report_id)
        if report is None or not caller.sees(report):
            raise errors.NotFound("there is no such report, or it is not yours to see")
        key = await certificates.signing_key(conn, wired.vault, random_bytes=wired.random_bytes)
        return await certificates.issue(conn, report_id, key=key), key


async def _page(document: dict[str, Any], key: Ed25519PrivateKey) -> Response:
    # In a thread: drawing takes some tens of milliseconds.
    page = await asyncio.to_thread(certificate_page.draw, document, evidence.encode(document))
    report_id = UUID(document["report"]["id"])
    return _file(evidence.sign_page(page, key), PDF, report_id, "pdf")


def _file(content: bytes, media_type: str, report_id: UUID, suffix: str) -> Response:
    return Response(
        content,
        media_type=media_type,
        headers={
            "Content-Disposition": f'attachment; filename="certificate-{report_id}.{suffix}"',
            # What it says is of this moment, and for who asked.
            "Cache-Control": "no-store",
            "Vary": "Accept",
        },
    )
