"""What a certificate says, and whether it holds: hashed texts, the chain, signatures. Pure.

The texts are written here by themselves, not read from the database, so that what PostgreSQL hashed
is checked by another hand. `check` finds every change of a certificate that its signer did not
make; what it cannot find is what the signer left out, which is for the log to tell.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from pydantic import ValidationError

from api.schemas import Certificate

FORMAT: Final = "georouter certificate 1"
EVENT: Final = "georouter event 1"
CONTENT: Final = "georouter content 1"
# What is signed begins with one of these, so that a signature of one thing is none of another.
SIGNED: Final = b"georouter certificate 1\n"
SIGNED_PAGE: Final = b"georouter certificate page 1\n"
# The last line of a signed page: a comment, behind what a reader of PDF reads.
PAGE_SIGNATURE: Final = b"\n%georouter-signature "
ATTACHED: Final = re.compile(rb"<<([^<>]*/EmbeddedFile\b[^<>]*)>>\s*stream\r?\n")
LENGTH: Final = re.compile(rb"/Length (\d{1,9})\b")
LARGEST_FILE: Final = 32 * 1024 * 1024


class NotACertificate(Exception):  # noqa: N818 - reads as the sentence it is
    """What was given is no certificate at all."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be: a stable code, where, and what."""

    code: str
    where: str
    message: str


# --- what is hashed -------------------------------------------------------------------------------


def instant(at: datetime) -> str:
    """In UTC to the microsecond, always as many digits."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def event_text(
    *,
    report_id: UUID | str,
    n: int,
    at: str,
    kind: str,
    authority_id: UUID | str | None,
    key: str | None,
    detail: str,
    previous: str | None,
) -> str:
    """What is hashed of an event. `detail` as PostgreSQL writes its jsonb, `previous` in hex."""
    return "\n".join(
        (
            EVENT,
            f"report {report_id}",
            f"n {n}",
            f"at {at}",
            f"kind {kind}",
            f"authority {authority_id or '-'}",
            f"key {'-' if key is None else _quoted(key)}",
            f"detail {detail}",
            f"previous {previous or '-'}",
        )
    )


def content_text(
    *,
    report_id: UUID | str,
    salt: UUID | str,
    category: str,
    lon: float,
    lat: float,
    observed_at: str | None,
    answers: str,
    description: str,
) -> str:
    """What is hashed of what was reported. `answers` as PostgreSQL writes its jsonb."""
    return "\n".join(
        (
            CONTENT,
            f"report {report_id}",
            f"salt {salt}",
            f"category {_quoted(category)}",
            f"lon {lon:.7f}",
            f"lat {lat:.7f}",
            f"observed {observed_at or '-'}",
            f"answers {answers}",
            f"description {_quoted(description)}",
        )
    )


def _quoted(text: str) -> str:
    """A JSON string on one line, as PostgreSQL writes one."""
    return json.dumps(text, ensure_ascii=False)


def sha256(text: str) -> str:
    """In hex, of the text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def _line(hashed: str, name: str) -> str | None:
    """What a hashed text says under a name."""
    found = [line for line in hashed.split("\n") if line.startswith(f"{name} ")]
    return found[0].removeprefix(f"{name} ") if len(found) == 1 else None


# --- what follows from the events -----------------------------------------------------------------


def attempts(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The attempts that a certificate's events tell of, in their order.

    Of one that was told of twice, as of a mail that came back, what was told last.
    """
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        if event["kind"] == "attempted":
            told = event["detail"]
            found[_dump([told.get("delivery"), told.get("n")])] = {
                "event": event["n"],
                "authority": event["authority"],
                **{name: told.get(name) for name in _TOLD},
                **{name: told.get(name, False) for name in ("unsure", "nothing_sent")},
            }
    return sorted(found.values(), key=lambda one: (str(one["started_at"]), one["event"]))


_TOLD: Final = (
    *("delivery", "sequence", "n", "endpoint", "channel", "started_at", "finished_at"),
    *("outcome", "status", "answer_sha256", "reference"),
)


def acceptances(tried: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """When each authority first took the report itself, and with what answer, of its attempts.

    One by one: an authority that took it and then said "not ours" knew of it all the same.
    """
    first: dict[str, dict[str, Any]] = {}
    for one in tried:
        if one["outcome"] == "delivered" and one["sequence"] == 1 and not one["nothing_sent"]:
            names = ("event", "authority", "channel", "status", "answer_sha256", "reference")
            accepted = {"at": one["finished_at"], **{name: one[name] for name in names}}
            first.setdefault(one["authority"]["id"] if one["authority"] else "", accepted)
    return list(first.values())


# --- signing --------------------------------------------------------------------------------------


def canonical(document: Mapping[str, Any]) -> bytes:
    """What is signed of a document: all but its signature, sorted by name, without blanks."""
    told = {name: value for name, value in document.items() if name != "signature"}
    return SIGNED + json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def public_key(key: Ed25519PrivateKey) -> str:
    """In hex, as it is published."""
    return key.public_key().public_bytes_raw().hex()


def sign(document: Mapping[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """The document with its signature."""
    value = key.sign(canonical(document)).hex()
    signature = {"algorithm": "Ed25519", "public_key": public_key(key), "value": value}
    return {**document, "signature": signature}


def sign_page(page: bytes, key: Ed25519PrivateKey) -> bytes:
    """A PDF with its signature behind it, which covers every byte before."""
    page = page.rstrip(b"\n")
    value = key.sign(SIGNED_PAGE + page).hex()
    return page + PAGE_SIGNATURE + f"{public_key(key)} {value}\n".encode("ascii")


def _signed_by(key: str, value: str, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(value), message)
    except (ValueError, InvalidSignature):
        return False
    return True


# --- reading a file -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Read:
    """A certificate out of a file, and what is wrong with the page that it came in."""

    document: dict[str, Any]
    findings: tuple[Finding, ...] = ()


def encode(document: Mapping[str, Any]) -> bytes:
    """A certificate as a file."""
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def read(data: bytes) -> Read:
    """The certificate in a file, JSON or PDF. Raises `NotACertificate`."""
    if not data.startswith(b"%PDF-"):
        return Read(_parse(data))
    document = next(_attached(data), None)
    if document is None:
        raise NotACertificate("the PDF holds no certificate; save it as it was sent")
    page, mark, rest = data.rpartition(PAGE_SIGNATURE)
    key, _, value = rest.decode("ascii", "replace").partition(" ")
    altered = Finding("page", "page", "the PDF is not as it was issued: believe only its data")
    # The last line to the letter: what is no hexadecimal digit, or beside it, is not signed.
    whole = mark and rest == f"{key} {value.strip()}\n".encode("ascii", "replace").lower()
    told = document.get("signature")
    same = isinstance(told, dict) and told.get("public_key") == key
    if whole and same and _signed_by(key, value.strip(), SIGNED_PAGE + page):
        return Read(document)
    return Read(document, (altered,))


def _attached(page: bytes) -> Iterator[dict[str, Any]]:
    """The files that are attached to a PDF, as ours are written: compressed, their length told."""
    for found in ATTACHED.finditer(page):
        length = LENGTH.search(found[1])
        body = page[found.end() : found.end() + int(length[1] if length else 0)]
        try:
            plain = zlib.decompressobj().decompress(body, LARGEST_FILE)
        except zlib.error:
            continue
        yield _parse(plain)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data, object_pairs_hook=_each_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise NotACertificate(f"this is no certificate: {error}") from None
    if not isinstance(document, dict) or "certificate" not in document:
        raise NotACertificate("this is JSON, but no certificate of georouter's")
    return document


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # A reader would see the first one, and a program the last.
        raise ValueError("a name occurs twice in an object")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


# --- checking -------------------------------------------------------------------------------------


def check(document: Mapping[str, Any]) -> list[Finding]:
    """What is wrong within a certificate. Whose key signed it is for the caller to ask."""
    place = _out_of_shape(document)
    if place is not None:
        return [Finding("shape", place, "is not what a certificate has there")]
    signature = document["signature"]
    findings = [*_check_events(document), *_check_content(document)]
    found = attempts(document["events"])
    for name, value in (("attempts", found), ("accepted", acceptances(found))):
        if _dump(document[name]) != _dump(value):
            findings.append(Finding(name, name, "do not follow from the events"))
    if not _signed_by(signature["public_key"], signature["value"], canonical(document)):
        findings.append(
            Finding("signature", "signature", "is not the signer's: something was changed")
        )
    return findings


def _out_of_shape(document: Mapping[str, Any]) -> str | None:
    try:
        Certificate.model_validate_json(json.dumps(document))
    except ValidationError as error:
        return ".".join(map(str, error.errors()[0]["loc"])) or "file"
    except (ValueError, RecursionError):
        return "file"
    return None


def _check_events(document: Mapping[str, Any]) -> Iterator[Finding]:
    report_id = document["report"]["id"]
    before: str | None = None
    for place, event in enumerate(document["events"], start=1):
        where = f"event {event['n']}"
        if event["n"] != place:
            yield Finding("gap", where, f"stands where event {place} should")
        hashed = event["hashed"]
        if sha256(hashed) != event["hash"]:
            yield Finding("hash", where, "its hash is not that of its text")
        if _line(hashed, "previous") != (before or "-"):
            yield Finding("chain", where, "does not follow the event before it")
        detail = _line(hashed, "detail") or ""
        text = event_text(
            report_id=report_id,
            n=event["n"],
            at=event["at"],
            kind=event["kind"],
            authority_id=event["authority"]["id"] if event["authority"] else None,
            key=event["key"],
            detail=detail,
            previous=_line(hashed, "previous"),
        )
        if text != hashed or not _same_json(detail, event["detail"]):
            yield Finding("event", where, "says something else than the text that was hashed")
        before = event["hash"]
    if before != document["head"]:
        yield Finding("head", "head", "is not the hash of the last event")


def _check_content(document: Mapping[str, Any]) -> Iterator[Finding]:
    report, content = document["report"], document["content"]
    committed = document["events"][0]["detail"].get("content_sha256")
    if sha256(report["description"]) != report["description_sha256"]:
        yield Finding("content", "report.description_sha256", "is not that of the description")
    if report["received_at"] != document["events"][0]["at"]:
        yield Finding("received", "report.received_at", "is not when event 1 says")
    if content is None:  # it has been erased, or was never committed to
        return
    hashed = content["hashed"]
    answers = _line(hashed, "answers") or ""
    text = content_text(
        report_id=report["id"],
        salt=_line(hashed, "salt") or "",
        category=report["category"],
        lon=report["place"]["lon"],
        lat=report["place"]["lat"],
        observed_at=report["observed_at"],
        answers=answers,
        description=report["description"],
    )
    if text != hashed or not _same_json(answers, report["answers"]):
        yield Finding("content", "content", "the report says something else than what was hashed")
    if not sha256(hashed) == content["sha256"] == committed:
        yield Finding("content", "content", "its hash is not the one that event 1 commits to")


def _same_json(text: str, value: Any) -> bool:
    try:
        return _dump(json.loads(text)) == _dump(value)
    except ValueError:
        return False


def _dump(value: Any) -> str:
    """For comparing: true is not 1 here, nor 1 the same as 1.0."""
    return json.dumps(value, sort_keys=True)


def check_key(document: Mapping[str, Any], keys: Collection[str]) -> Iterator[Finding]:
    """Whether one of these public keys signed it."""
    if document["signature"]["public_key"] not in keys:
        yield Finding("key", "signature", "is by a key that is not known to be the operator's")


def summary(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a certificate says in short, for who verifies it; of one out of shape what there is."""

    def part(*path: str) -> Any:
        value: Any = document
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    events, accepted = part("events"), part("accepted")
    return {
        "report": part("report", "id"),
        "received_at": part("report", "received_at"),
        "accepted": accepted if isinstance(accepted, list) else [],
        "events": len(events) if isinstance(events, list) else 0,
        "head": part("head"),
        "signed_by": part("signature", "public_key"),
        "issued_at": part("issued_at"),
    }


# --- the log --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """An event as it is in the database; `detail` as PostgreSQL writes it."""

    report_id: UUID
    n: int
    at: datetime
    kind: str
    authority_id: UUID | None
    authority_name: str | None
    key: str | None
    detail: str
    previous_hash: bytes | None
    hash: bytes

    @property
    def text(self) -> str:
        """What should have been hashed."""
        return event_text(
            report_id=self.report_id,
            n=self.n,
            at=instant(self.at),
            kind=self.kind,
            authority_id=self.authority_id,
            key=self.key,
            detail=self.detail,
            previous=self.previous_hash.hex() if self.previous_hash is not None else None,
        )


def check_log(events: Sequence[Logged]) -> Iterator[Finding]:
    """What is wrong with a report's events in the database."""
    if not events:
        yield Finding("missing", "event 1", "the report has no events at all")
    before: bytes | None = None
    for place, event in enumerate(events, start=1):
        where = f"event {event.n}"
        if event.n != place:
            yield Finding("gap", where, f"stands where event {place} should")
        if hashlib.sha256(event.text.encode()).digest() != event.hash:
            yield Finding("hash", where, "was changed after it was written: its hash is another")
        if event.previous_hash != before:
            yield Finding("chain", where, "does not follow the event before it")
        before = event.hash


def compare(document: Mapping[str, Any], events: Sequence[Logged]) -> Iterator[Finding]:
    """Whether the log still has what a certificate has. More events are no finding."""
    logged = {event.n: event.hash.hex() for event in events}
    for event in document["events"]:
        where = f"event {event['n']}"
        if event["n"] not in logged:
            yield Finding("removed", where, "is not in the log any more")
        elif logged[event["n"]] != event["hash"]:
            yield Finding("rewritten", where, "is another one in the log")
