"""Every failure that the HTTP API can answer with, and the one table that gives it a status.

An exception maps to (slug, status, title) in `TABLE` and is rendered as RFC 9457
`application/problem+json`; the framework's own errors take the same shape. A 5xx never shows the
text of an exception: it shows the correlation id that the log lines carry. It is long because
every failure has a class and a row here, and nowhere else.
"""

# ruff: noqa: N818 - the names read as the sentences they are

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from georouter.model import InvalidCoordinate, NotACandidate, UnknownCategory

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:georouter:problem:"
# The middleware that makes the correlation id leaves it here.
CORRELATION_KEY = "georouter.correlation_id"
MAX_ERRORS = 20
RETRY_AFTER_S = 5
# Not "nothing was stored": a connection that broke during a commit leaves that open.
RETRY = "send the same request again shortly; with the same Idempotency-Key it counts once"


class ApiError(Exception):
    """A refusal that the caller can act on; `detail` says what was wrong and what to do.

    `fields` are (name, message) pairs for the fields at fault; `extra` are further members of the
    problem document; `retry_after_s` is when the same request may succeed.
    """

    def __init__(
        self,
        detail: str,
        *,
        fields: Sequence[tuple[str, str]] = (),
        extra: Mapping[str, Any] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = tuple(fields)
        self.extra = dict(extra or {})
        self.retry_after_s = retry_after_s


class AccessError(ApiError):
    """The caller is not known, or may not do this."""


class KeyMissing(AccessError):
    """No API key came with the request."""


class KeyUnknown(AccessError):
    """What came is no API key of ours."""


class KeyExpired(AccessError):
    """The key's time is over."""


class KeyRevoked(AccessError):
    """An operator has taken the key back."""


class RoleForbidden(AccessError):
    """A valid key whose role does not reach this far."""


class IntakeError(ApiError):
    """A request that cannot be taken in as it stands."""


class MediaTypeUnsupported(IntakeError):
    """The body is not declared as what it must be."""


class IdempotencyKeyInvalid(IntakeError):
    """An `Idempotency-Key` that is no 1 to 255 printable ASCII characters."""


class IdempotencyKeyReused(IntakeError):
    """The key was used before, for another report."""


class PhotoRefused(IntakeError):
    """What was uploaded is no photo that can be used; nothing of it is kept."""


class UploadHeaderInvalid(IntakeError):
    """A header that an upload needs is missing or makes no sense."""


class UploadStalled(IntakeError):
    """Nothing came for too long; what came before is kept."""


class TusVersionUnsupported(IntakeError):
    """The client speaks another version of tus, or does not say which."""


class FieldRefused(IntakeError):
    """One field, well-formed, whose value cannot be accepted."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}", fields=[(field, message)])


class AnswersRefused(IntakeError):
    """Answers that do not fit the category's questions: pairs of a question's code and a remedy."""

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        fields = [(f"answers.{code}", message) for code, message in faults]
        super().__init__(_in_brief(fields), fields=fields[:MAX_ERRORS])


class PlaceError(ApiError):
    """A point that no authority can be found for."""


class OutsideServiceArea(PlaceError):
    """The point is in no area that answers for the category."""


class SwappedAxes(PlaceError):
    """The point is outside, and would be inside with longitude and latitude exchanged."""


class NoActiveDataset(PlaceError):
    """No boundary dataset is in force, so nothing can be routed."""


class ResourceError(ApiError):
    """Something that is not there, or is there already."""


class NotFound(ResourceError):
    """No such thing, or none that this caller may see."""


class ReportElsewhere(ResourceError):
    """The report is with another authority by now."""


class NotRedeliverable(ResourceError):
    """A delivery that cannot be sent again, now or ever."""


class EndpointExists(ResourceError):
    """The authority already has an endpoint at this address."""


class EndpointUnfit(ResourceError):
    """The endpoint's state, or its channel, does not allow this."""


class ChallengedTooOften(ResourceError):
    """The endpoint, or its authority, has had as many challenges as there are for now."""


class SealedUnreadable(ApiError):
    """Something personal is sealed with a key that this process does not have."""


class NotClosed(ResourceError):
    """The authority has not closed the report, so nobody can say that it is still there."""


class TooManyStreams(ApiError):
    """As many streams of events are open as this process serves."""


class TooManyRequests(ApiError):
    """More than this key, or this address, may ask for now."""


class SigningKeyUnreadable(ApiError):
    """The key that signs certificates is sealed with one that this process does not have."""


class UploadOffsetWrong(ResourceError):
    """These bytes do not follow on what has come."""


class UploadGone(ResourceError):
    """The upload has expired or was ended."""


class PhotoAttached(ResourceError):
    """The photo belongs to a report already."""


class PhotosEnough(ResourceError):
    """The report has as many photos as it may."""


class LinkExpired(ResourceError):
    """A signed link whose time is over."""


class PhotosUnavailable(ApiError):
    """Photos cannot be made or kept at the moment."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the table says of a failure: `slug` is its stable name, `title` the same in words."""

    slug: str
    status: int
    title: str

    @property
    def type(self) -> str:
        """The problem type, a URN."""
        return TYPE_PREFIX + self.slug


VALIDATION_FAILED = Row("validation-failed", 422, "The request does not validate")
MALFORMED_JSON = Row("malformed-json", 400, "The body is not JSON")
DATABASE_UNAVAILABLE = Row("database-unavailable", 503, "The database is not reachable")
BODY_TOO_LARGE = Row("body-too-large", 413, "The body is too large")
INTERNAL_ERROR = Row("internal-error", 500, "Something went wrong on our side")

TABLE: dict[type[Exception], Row] = {
    KeyMissing: Row("key-missing", 401, "An API key is needed"),
    KeyUnknown: Row("key-unknown", 401, "The API key is not known"),
    KeyExpired: Row("key-expired", 401, "The API key has expired"),
    KeyRevoked: Row("key-revoked", 401, "The API key has been revoked"),
    RoleForbidden: Row("forbidden", 403, "The API key does not allow this"),
    MediaTypeUnsupported: Row("unsupported-media-type", 415, "The body is of another type"),
    IdempotencyKeyInvalid: Row("invalid-idempotency-key", 400, "The idempotency key is invalid"),
    IdempotencyKeyReused: Row(
        "idempotency-key-reused", 422, "The idempotency key was used for another report"
    ),
    PhotoRefused: Row("photo-refused", 422, "The photo cannot be used"),
    UploadHeaderInvalid: Row("invalid-upload-header", 400, "A header of the upload is wrong"),
    UploadStalled: Row("upload-stalled", 408, "The upload has stalled"),
    TusVersionUnsupported: Row("unsupported-tus-version", 412, "The version of tus is another"),
    FieldRefused: VALIDATION_FAILED,
    AnswersRefused: VALIDATION_FAILED,
    InvalidCoordinate: VALIDATION_FAILED,
    UnknownCategory: Row("unknown-category", 422, "The category is not known"),
    NotACandidate: Row("not-a-candidate", 422, "The choice is none of the candidates"),
    OutsideServiceArea: Row("outside-service-area", 422, "The point is outside the service area"),
    SwappedAxes: Row("swapped-axes", 422, "Longitude and latitude look swapped"),
    NoActiveDataset: Row("no-active-dataset", 503, "No boundary dataset is in force"),
    NotFound: Row("not-found", 404, "There is no such thing"),
    ReportElsewhere: Row("report-elsewhere", 409, "The report is with another authority"),
    NotRedeliverable: Row("not-redeliverable", 409, "The delivery cannot be sent again"),
    EndpointExists: Row("endpoint-exists", 409, "The endpoint is registered already"),
    EndpointUnfit: Row("endpoint-unfit", 409, "The endpoint does not allow this as it is"),
    ChallengedTooOften: Row("challenged-too-often", 429, "There were too many challenges"),
    SealedUnreadable: Row("sealed-unreadable", 503, "Personal data cannot be opened"),
    NotClosed: Row("not-closed", 409, "The report is not closed"),
    TooManyStreams: Row("too-many-streams", 503, "There are too many open streams"),
    TooManyRequests: Row("too-many-requests", 429, "There were too many requests"),
    SigningKeyUnreadable: Row("signing-key-unreadable", 503, "Certificates cannot be signed"),
    UploadOffsetWrong: Row("upload-offset-wrong", 409, "The bytes do not follow on what has come"),
    UploadGone: Row("upload-gone", 410, "The upload has ended"),
    PhotoAttached: Row("photo-attached", 409, "The photo belongs to a report"),
    PhotosEnough: Row("photos-enough", 409, "The report has as many photos as it may"),
    LinkExpired: Row("link-expired", 410, "The link has expired"),
    PhotosUnavailable: Row("photos-unavailable", 503, "Photos cannot be taken or shown just now"),
}

# What the framework itself answers with, by status.
FRAMEWORK: dict[int, Row] = {
    400: Row("bad-request", 400, "The request cannot be understood"),
    404: TABLE[NotFound],
    405: Row("method-not-allowed", 405, "The method is not allowed here"),
    413: BODY_TOO_LARGE,
}


# What every operation that takes a key may answer.
KEYED = (
    KeyMissing,
    KeyUnknown,
    KeyExpired,
    KeyRevoked,
    TooManyRequests,
    DATABASE_UNAVAILABLE,
    INTERNAL_ERROR,
)

SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "A problem document, RFC 9457. `type` is stable; branch on it.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "The fields at fault.",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
        "known": {
            "type": "array",
            "description": "Of an unknown category: the known ones.",
            "items": {"type": "string"},
        },
        "correlation_id": {
            "type": "string",
            "description": "Of a 5xx: quote it when you ask about the failure.",
        },
    },
}


def documented(*failures: type[Exception] | Row) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI `responses` of an operation that may answer with these."""
    responses: dict[int | str, dict[str, Any]] = {}
    for failure in failures:
        row = failure if isinstance(failure, Row) else TABLE[failure]
        example = {"type": row.type, "title": row.title, "status": row.status, "detail": "..."}
        response = responses.setdefault(
            row.status,
            {
                "description": row.title,
                "content": {
                    MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
                },
            },
        )
        response["content"][MEDIA_TYPE]["examples"][row.slug] = {
            "summary": row.title,
            "value": example,
        }
        if row.title not in response["description"]:
            response["description"] += f", or: {row.title[0].lower()}{row.title[1:]}"
    return responses


def install(app: FastAPI, also: Mapping[type[Exception], Row]) -> None:
    """Make `app` answer with problem documents.

    `also` gives rows to exceptions of rooms that this one may not import.
    """
    rows = {**TABLE, **also}

    async def handle(request: Request, error: Exception) -> Response:
        response = respond(request.scope, error, rows)
        if response.status_code == 405:
            # The framework names the methods of one route, where several share the path.
            response.headers["Allow"] = ", ".join(sorted(_methods(app.routes, request)))
        return response

    for kind in (*rows, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, handle)


def _methods(routes: Iterable[Any], request: Request) -> set[str]:
    """All methods that the path of a request takes."""
    found: set[str] = set()
    for route in routes:
        if router := getattr(route, "original_router", None):  # as FastAPI includes routers
            found |= _methods(router.routes, request)
        elif route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return found


def respond(
    scope: Mapping[str, Any], error: Exception, rows: Mapping[type[Exception], Row] = TABLE
) -> Response:
    """Render an exception as a problem document."""
    row, document, headers = describe(scope, error, rows)
    if row.status == 401:
        challenge = 'Bearer realm="georouter"'
        if not isinstance(error, KeyMissing):
            challenge += ', error="invalid_token"'
        headers["WWW-Authenticate"] = challenge
    if row.status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    body = json.dumps(document).encode()
    return Response(body, status_code=row.status, headers=headers, media_type=MEDIA_TYPE)


def describe(
    scope: Mapping[str, Any], error: Exception, rows: Mapping[type[Exception], Row] = TABLE
) -> tuple[Row, dict[str, Any], dict[str, str]]:
    """An exception's row, its problem document, and the headers that it asks for."""
    row, detail, fields, extra, headers = _read(error, rows)
    document: dict[str, Any] = {
        "type": row.type,
        "title": row.title,
        "status": row.status,
        # It may quote what a client sent, lone surrogates included.
        "detail": detail.encode("utf-8", "replace").decode(),
    }
    if fields:
        document["errors"] = [
            {"field": _printable(name), "message": _printable(message)} for name, message in fields
        ]
    document |= extra
    correlation_id = scope.get(CORRELATION_KEY)
    if row.status >= 500 and correlation_id is not None:
        document["correlation_id"] = correlation_id
    return row, document, headers


Read = tuple[Row, str, Iterable[tuple[str, str]], Mapping[str, Any], dict[str, str]]


def _read(error: Exception, rows: Mapping[type[Exception], Row]) -> Read:
    """The row, detail, fields at fault, further members and headers of an exception."""
    if isinstance(error, RequestValidationError):
        return _read_validation(error)
    if isinstance(error, HTTPException):
        return _read_framework(error)
    row = next((rows[kind] for kind in type(error).__mro__ if kind in rows), INTERNAL_ERROR)
    fields: Iterable[tuple[str, str]] = ()
    extra: Mapping[str, Any] = {}
    headers: dict[str, str] = {}
    match error:
        case ApiError():
            detail, fields, extra = error.detail, error.fields, error.extra
            if error.retry_after_s is not None:
                headers["Retry-After"] = str(ceil(error.retry_after_s))
        case InvalidCoordinate():
            detail, fields = str(error), [(error.field, str(error))]
        case UnknownCategory():
            detail, fields = str(error), [("category", "is not one of the known ones")]
            extra = {"known": list(error.known)}
        case NotACandidate():
            detail, fields = str(error), [("chosen", "is none of the candidates")]
            extra = {"candidates": list(error.candidates)}
        case _ if row is DATABASE_UNAVAILABLE:
            detail = RETRY
        case _:
            detail = "the failure is logged under the correlation id; quote it when you ask"
    return row, detail, fields, extra, headers


def _read_validation(error: RequestValidationError) -> Read:
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        reason = found[0].get("ctx", {}).get("error", "")
        position = found[0]["loc"][-1]
        return MALFORMED_JSON, f"the body is not JSON: {reason} at character {position}", (), {}, {}
    fields = [(_field(item, error.body), _sentence(item)) for item in found]
    return VALIDATION_FAILED, _printable(_in_brief(fields)), fields[:MAX_ERRORS], {}, {}


def _in_brief(fields: Sequence[tuple[str, str]]) -> str:
    detail = "; ".join(f"{name}: {message}" for name, message in fields[:3])
    return detail if len(fields) <= 3 else f"{detail}; and {len(fields) - 3} more"


def _read_framework(error: HTTPException) -> Read:
    row = FRAMEWORK.get(error.status_code)
    if row is None:
        slug = "internal-error" if error.status_code >= 500 else "bad-request"
        row = Row(slug, error.status_code, "The request was refused")
    details = {
        404: "there is nothing at this address",
        405: "this address does not take that method; the Allow header lists those it takes",
    }
    detail = details.get(row.status, "" if row.status >= 500 else str(error.detail))
    return row, detail or INTERNAL_ERROR.title, (), {}, dict(error.headers or {})


def _field(item: Mapping[str, Any], body: Any) -> str:
    """Where in the request: the path within the body, or the parameter's name."""
    location: Sequence[str | int] = item["loc"]
    if item["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        return str(item["ctx"]["discriminator"]).strip("'")
    if location and location[0] == "body" and isinstance(body, Mapping) and len(location) > 2:
        # Of a body that comes in several kinds the first step names the kind, which is no field.
        location = location[1:] if location[1] in body else location[2:]
    elif location and location[0] in {"body", "query", "path"}:
        location = location[1:]
    # The framework marks a name at fault, rather than its value, with "[key]" behind it.
    return ".".join(str(part) for part in location if part != "[key]") or "body"


def _sentence(item: Mapping[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        return "is not a field of this request"
    if item["type"] in {"missing", "union_tag_not_found"}:
        return "is required"
    if item["type"] == "union_tag_invalid":
        return f"must be one of {item['ctx']['expected_tags']}"
    return str(item["msg"]).removeprefix("Value error, ")


def _printable(text: str) -> str:
    """A quote of what the client sent, safe to encode and cut to a length worth reading."""
    return text.encode("utf-8", "replace").decode()[:500]
