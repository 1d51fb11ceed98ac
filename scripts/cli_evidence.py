"""The evidence commands: `verify` certificates and the log, and show or change the signing key.

Like the rest of the command line it parses, calls and prints. What was found is on stdout.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from scripts.terminal import (
    Commit,
    Json,
    NotFoundError,
    UsageError,
    progress_bar,
    read_settings,
    stderr,
    with_database,
)


def verify(
    file: Annotated[
        Path | None,
        typer.Argument(
            exists=True, dir_okay=False, help="A certificate, JSON or PDF as it was sent."
        ),
    ] = None,
    *,
    offline: Annotated[
        bool, typer.Option("--offline", help="Check the file in itself, without the database.")
    ] = False,
    key: Annotated[
        list[str] | None,
        typer.Option(help="With --offline: a public key that the operator publishes; repeatable."),
    ] = None,
    whole_log: Annotated[
        bool, typer.Option("--all", help="Check the events of all reports, without a certificate.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a certificate in itself and against the log, or the whole log; exit 3 if it fails."""
    if (file is None) != whole_log:
        raise UsageError("verify takes a FILE, or --all")
    if whole_log and offline:
        raise UsageError("--all is about the database; --offline does without it")
    if key and not offline:
        raise UsageError("--key goes with --offline; the database knows its own keys")
    found = _verify_log(as_json=as_json) if file is None else _verify_file(file, offline, key or ())
    if file is not None:
        _show(found, as_json=as_json)
    if found["findings"]:
        sys.exit(3)


def _verify_file(file: Path, offline: bool, keys: list[str] | tuple[()]) -> dict[str, Any]:  # noqa: FBT001 - ours alone
    from api import certificates, evidence

    with file.open("rb") as opened:
        read = evidence.read(opened.read(evidence.LARGEST_FILE))
    document = read.document
    findings = [*read.findings, *evidence.check(document)]
    later = None
    if not any(one.code == "shape" for one in findings):
        if offline:
            findings += evidence.check_key(document, keys) if keys else ()
        else:
            compared = with_database(lambda conn: certificates.verify(conn, document))
            if compared is not None:
                findings += compared.findings
                later = compared.later
            elif not findings:
                raise NotFoundError(f"the database has no report {document['report']['id']}")
    return {
        **evidence.summary(document),
        "file": str(file),
        "checked": "the file in itself" if offline else "the file, and against the log",
        "key_known": bool(keys) or not offline,
        "later_events": later,
        "findings": [dataclasses.asdict(one) for one in findings],
    }


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name in ("report", "received_at", "accepted", "events", "head", "signed_by", "issued_at"):
        for value in found[name] if isinstance(found[name], list) else [found[name]]:
            typer.echo(f"{name.replace('_', ' '):<12}{value}")
    for one in found["findings"]:
        typer.echo(f"WRONG       {one['where']}: {one['message']} [{one['code']}]")
    if found["later_events"]:
        stderr.print(f"{found['later_events']} events have followed since it was issued")
    if not found["key_known"]:
        stderr.print("whose key signed it was not checked: compare it, or give it as --key")
    verdict = f"{len(found['findings'])} findings" if found["findings"] else "it holds"
    stderr.print(f"checked: {found['checked']}; {verdict}")


def _verify_log(*, as_json: bool) -> dict[str, Any]:
    """Print what is found as it is found: there may be much of it."""
    from api import certificates

    async def walk(conn: Any) -> dict[str, Any]:
        total = await certificates.count(conn)
        reports = events = findings = 0
        with progress_bar() as progress:
            async for batch in certificates.walk(conn):
                reports, events = reports + batch.reports, events + batch.events
                findings += len(batch.findings)
                progress("reports", reports / max(total, reports))
                for report_id, one in batch.findings:
                    told = {"report": str(report_id), **dataclasses.asdict(one)}
                    line = f"report {report_id}, {one.where}: {one.message} [{one.code}]"
                    typer.echo(json.dumps(told) if as_json else line)
        return {"reports": reports, "events": events, "findings": findings}

    found: dict[str, Any] = with_database(walk)
    if as_json:
        typer.echo(json.dumps(found))
    stderr.print(
        f"{found['reports']:,} reports, {found['events']:,} events, {found['findings']} findings"
    )
    return found


def signing_keys(
    *,
    new: Annotated[
        bool, typer.Option("--new", help="Make a key and sign with it from now on.")
    ] = False,
    commit: Commit = False,
    as_json: Json = False,
) -> None:
    """Show the public keys that certificates are signed with, the newest first."""
    from api import certificates
    from api.vault import open_vault

    vault = open_vault(read_settings()) if new and commit else None

    async def work(conn: Any) -> list[dict[str, Any]]:
        if vault is not None:
            await certificates.renew_signing_key(conn, vault, random_bytes=secrets.token_bytes)
        return await certificates.signing_keys(conn)

    found: list[dict[str, Any]] = with_database(work)
    for one in found:
        until = f"until {one['retired_at']}" if one["retired_at"] else "in use"
        line = f"{one['public_key']}  from {one['created_at']}  {until}"
        typer.echo(json.dumps(one) if as_json else line)
    if not found:
        stderr.print("there is none yet: the first certificate makes one")
    if new and not commit:
        stderr.print("dry run: --commit makes a new key; what the old ones signed stays valid")
