"""The operator's commands for datasets that are built: parse, call, print; no logic lives here.

They are commands of `georouter boundaries`, as those of `cli_boundaries` are.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from scripts.terminal import (
    Commit,
    Json,
    instant,
    read_settings,
    stderr,
    with_database,
)

app = typer.Typer()

Name = Annotated[
    str, typer.Argument(metavar="FOLDER|VERSION", help="A dataset folder, or a version.")
]
Version = Annotated[str, typer.Argument(help="A version, or a unique beginning of one.")]
At = Annotated[
    str | None,
    typer.Option(
        metavar="DAY|TIME",
        help="A day or time to come in the United Kingdom, such as 2027-04-01 (its midnight) or "
        "2027-04-01T06:00; without it, at once.",
    ),
]


@app.command("stage")
def stage(
    folder: Annotated[Path, typer.Argument(help="A dataset folder made by `build`.")],
    *,
    commit: Commit = False,
    as_json: Json = False,
) -> None:
    """Put a dataset into the store, to be activated later. Web processes fetch it meanwhile."""
    from api.activation import stage

    done = asyncio.run(stage(folder, **_place(), commit=commit))
    if as_json:
        typer.echo(json.dumps({**dataclasses.asdict(done), "committed": commit}))
    else:
        typer.echo(f"{done.version}: {done.areas} areas")
    if commit and not done.changed:
        stderr.print("it was there already")
    _dry_run("stage it", commit=commit)


@app.command("activate")
def activate(name: Name, at: At = None, *, commit: Commit = False, as_json: Json = False) -> None:
    """Put a dataset in force, at once or later. Running web processes follow within seconds."""
    from api.activation import activate
    from api.london import parse_instant

    from_at = parse_instant(at) if at else None
    done = asyncio.run(activate(name, **_place(), rules=_rules(), from_at=from_at, commit=commit))
    _show_activated(done, from_at, commit=commit, as_json=as_json)
    if commit and not done.changed:
        stderr.print("it would be in force then anyway" if from_at else "it was in force already")
    _dry_run("put it in force", commit=commit)


@app.command("rollback")
def rollback(
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Not the one before, but this one.")
    ] = None,
    *,
    commit: Commit = False,
    as_json: Json = False,
) -> None:
    """Put the dataset in force again that was before. Once more, and it goes further back."""
    from api.activation import roll_back

    done = asyncio.run(roll_back(**_place(), rules=_rules(), to=to, commit=commit))
    _show_activated(done, None, commit=commit, as_json=as_json)
    if commit and not done.changed:
        stderr.print("it was in force already")
    _dry_run("roll back", commit=commit)


@app.command("withdraw")
def withdraw(
    version: Version, at: At = None, *, commit: Commit = False, as_json: Json = False
) -> None:
    """Call off a planned activation."""
    from api import db
    from api.activation import withdraw
    from api.london import parse_instant

    dsn = db.resolve_dsn(read_settings())
    from_at = parse_instant(at) if at else None
    done = asyncio.run(withdraw(version, dsn=dsn, from_at=from_at, commit=commit))
    if as_json:
        told = {"version": done.version, "from": instant(done.from_at), "committed": commit}
        typer.echo(json.dumps(told))
    else:
        typer.echo(f"{done.version} does not come into force on {instant(done.from_at)}")
    _dry_run("call it off", commit=commit)


@app.command("prune")
def prune(
    keep: Annotated[
        int, typer.Option(min=0, help="How many of those retired last are kept whatever their age.")
    ] = 2,
    older_than: Annotated[
        int, typer.Option(min=0, metavar="DAYS", help="Only those retired or staged for so long.")
    ] = 30,
    *,
    commit: Commit = False,
    as_json: Json = False,
) -> None:
    """Remove the artefacts of datasets that are not needed any more; reports go on naming them."""
    from api.activation import prune

    done = asyncio.run(
        prune(**_place(), keep=keep, older_than=timedelta(days=older_than), commit=commit)
    )
    if as_json:
        typer.echo(json.dumps([{**dataclasses.asdict(one), "committed": commit} for one in done]))
    else:
        for one in done:
            typer.echo(f"{one.version}  {one.idle_days} days idle  {one.bytes / 1e6:.1f} MB")
    if not done:
        stderr.print("nothing to remove")
    _dry_run("remove them", commit=commit)


@app.command("list")
def list_(*, as_json: Json = False) -> None:
    """List the datasets: which was, is and will be in force from when."""
    from api.store.datasets import list_datasets

    rows = [
        {
            "version": row["version"],
            "from": instant(row["from_at"]),
            "state": row["state"],
            "pruned": row["removed"],
        }
        for row in with_database(list_datasets)
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    wide = max((len(row["version"]) for row in rows), default=0)
    for row in rows:
        pruned = ", pruned" if row["pruned"] else ""
        typer.echo(f"{row['version']:<{wide}}  {row['from'] or '-':<27}  {row['state']}{pruned}")
    if not rows:
        stderr.print("there is none yet; see `georouter boundaries activate`")


@app.command("show")
def show(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[FOLDER|VERSION]",
            help="A dataset folder, or a version; else what is in force.",
        ),
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Show what a dataset is made of, what was found in it, and when it is in force."""
    from api.activation import describe, is_folder
    from boundaries.dataset import read_manifest

    if name is not None and is_folder(name):
        told = _summary(read_manifest(Path(name)), [], pruned=False)
    else:
        manifest, terms = with_database(lambda conn: describe(conn, name))
        told = _summary(manifest, terms, pruned=any(term["removed"] for term in terms))
    if as_json:
        typer.echo(json.dumps(told))
        return
    typer.echo(f"{told['version']}, built at {told['built_at'] or 'an unknown time'}")
    for term in told["terms"]:
        until = f" until {term['until']}" if term["until"] else ""
        typer.echo(f"{term['state']} from {term['from']}{until}" if term["from"] else term["state"])
    if told["pruned"]:
        typer.echo("its artefact was pruned")
    for layer in told["layers"]:
        typer.echo(f"layer {layer['name']}: {layer['areas']} areas, {layer['repaired']} repaired")
        for origin in layer["sources"]:
            typer.echo("  " + ", ".join(f"{key} {value}" for key, value in origin.items() if value))
    findings = ", ".join(f"{count} {severity}s" for severity, count in told["findings"].items())
    typer.echo(f"findings: {findings or 'none recorded'}")
    typer.echo(f"proof: {told['proof']['points']} points, {told['proof']['mismatches']} mismatches")
    typer.echo(f"index: {told['index_bytes'] / 1e6:.1f} MB")


def _summary(
    manifest: Mapping[str, Any], terms: Iterable[Mapping[str, Any]], *, pruned: bool
) -> dict[str, Any]:
    """What `show` tells of a manifest, however old."""
    from api.schemas import TOLD, origins_of

    proof = manifest.get("proof", {})
    return {
        "version": manifest["version"],
        "built_at": manifest.get("built_at"),
        "as_of": manifest.get("as_of"),
        "pruned": pruned,
        "terms": [
            {
                "state": term["state"],
                "from": instant(term["from_at"]),
                "until": instant(term["until"]),
            }
            for term in terms
        ],
        "layers": [
            {
                "name": layer["name"],
                "areas": layer["areas"],
                "repaired": len(layer.get("repaired", [])),
                "sources": [
                    {key: origin.get(key) for key in ("source", "file", *TOLD)}
                    for origin in origins_of(layer)
                ],
            }
            for layer in manifest.get("layers", [])
        ],
        "findings": Counter(one["severity"] for one in manifest.get("findings", [])),
        "proof": {
            "points": sum(proof.get("points", {}).values()),
            "mismatches": proof.get("mismatches"),
        },
        "index_bytes": manifest.get("index", {}).get("bytes", 0),
    }


# --- what they share ------------------------------------------------------------------------------


def _place() -> dict[str, Any]:
    """Where the store and the database are, as the operations take it."""
    from api import db
    from api.artefacts import Artefacts

    settings = read_settings()
    return {"artefacts": Artefacts.of(settings), "dsn": db.resolve_dsn(settings)}


def _rules() -> Any:
    from api.routing import load_rules

    return load_rules(read_settings().rules)


def _show_activated(done: Any, from_at: datetime | None, *, commit: bool, as_json: bool) -> None:
    to_come = [{"version": one.version, "from": instant(one.from_at)} for one in done.planned]
    if as_json:
        told = dataclasses.asdict(done) | {"planned": to_come}
        typer.echo(json.dumps({**told, "from": instant(from_at), "committed": commit}))
    else:
        before = f" in place of {done.before}" if done.before and done.changed else ""
        typer.echo(
            f"{done.version}{before}: {done.areas} areas, {done.new_authorities} new authorities"
            + (f", in force from {instant(from_at)}" if from_at else "")
        )
    for one in to_come:
        stderr.print(
            f"{one['version']} is still planned from {one['from']}; `georouter boundaries withdraw "
            f"{one['version']}` calls it off",
            markup=False,
        )


def _dry_run(what: str, *, commit: bool) -> None:
    if not commit:
        stderr.print(f"dry run: nothing was changed; add --commit to {what}")
