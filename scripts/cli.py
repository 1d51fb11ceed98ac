"""The operator's command line: parses, calls, prints, and turns errors into exit codes.

Data goes to stdout; progress and prose go to stderr. Exit codes: 0 ok, 1 failed, 2 usage,
3 validation findings, 4 not found, 5 conflict, 6 remote. It is long because the commands
are many; no logic lives here, and heavy libraries are imported by the commands that need them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

from scripts import cli_boundaries, cli_evidence, cli_privacy, cli_reports, council
from scripts.terminal import (
    Json,
    NotFoundError,
    UsageError,
    progress_bar,
    read_settings,
    stderr,
    with_database,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Routes street reports to the authority responsible and forwards them.",
)
keys_app = typer.Typer(no_args_is_help=True, help="API keys of apps, councils and operators.")
db_app = typer.Typer(no_args_is_help=True, help="The embedded database.")
app.add_typer(cli_boundaries.app, name="boundaries")
app.add_typer(cli_reports.app, name="reports")
app.add_typer(keys_app, name="keys")
secrets_app = typer.Typer(no_args_is_help=True, help="Keys that seal endpoints' secrets.")
app.add_typer(db_app, name="db")
app.add_typer(secrets_app, name="secrets")
app.add_typer(council.app, name="council")
app.add_typer(cli_privacy.app, name="privacy")
app.command("verify")(cli_evidence.verify)
app.command("signing-keys")(cli_evidence.signing_keys)


def main() -> None:
    """The console script `georouter`."""
    try:
        app()
    except KeyboardInterrupt:
        stderr.print("interrupted")
        sys.exit(130)
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise  # a bug: show where
        message = " ".join(str(error).split())
        stderr.print(f"georouter: {message}", markup=False)
        sys.exit(code)


def _exit_code(error: Exception) -> int | None:
    """The exit code of an expected failure; None for a bug."""
    return next((code for kinds, code in _expected() if isinstance(error, kinds)), None)


def _expected() -> Iterator[tuple[type[Exception] | tuple[type[Exception], ...], int]]:
    """The one table of expected failures, the narrower classes first."""
    from api.activation import ActivationRefused, DatasetUnknown
    from api.artefacts import ArtefactTaken, StoreUnavailable
    from api.db import DatabaseUnavailable, MigrationRefused, SchemaOutdated
    from api.embedded import EmbeddedPostgresError
    from api.errors import SigningKeyUnreadable
    from api.evidence import NotACertificate
    from api.london import InstantRefused
    from api.objects import ObjectStoreUnusable
    from api.privacy import NobodyFound
    from api.vault import VaultUnusable
    from boundaries.dataset import DatasetError, DatasetNotFoundError
    from boundaries.readers import SourceError, SourceNotFoundError
    from georouter.codec import IndexFormatError
    from georouter.model import (
        InvalidCoordinate,
        MissingLayer,
        NotACandidate,
        UnknownCategory,
    )
    from georouter.rules import RulesError

    yield (UsageError, InvalidCoordinate, NotACandidate, council.UsageRefusedError), 2
    yield InstantRefused, 2
    yield (SourceNotFoundError, DatasetNotFoundError, UnknownCategory, NotFoundError), 4
    yield (council.NotThereError, DatasetUnknown, NobodyFound), 4
    yield (MigrationRefused, council.ConflictError, ActivationRefused, ArtefactTaken), 5
    yield (DatabaseUnavailable, EmbeddedPostgresError, council.RemoteError, StoreUnavailable), 6
    yield (
        (
            SourceError,
            DatasetError,
            IndexFormatError,
            RulesError,
            SchemaOutdated,
            MissingLayer,
            UnreadableError,
            VaultUnusable,
            NotACertificate,
            SigningKeyUnreadable,
            ObjectStoreUnusable,
        ),
        1,
    )
    for module, kinds in _OF_BOUNDARIES.items():
        if module in sys.modules:
            for name, code in kinds.items():
                yield getattr(sys.modules[module], name), code


# Failures of rooms that take long to import: they exist only where a command has needed them. The
# narrower classes first.
_OF_BOUNDARIES = {
    "boundaries.findings": {"FindingsError": 3},
    "boundaries.build": {"BuildConflictError": 5},
    "boundaries.prove": {"ProofError": 1},
    "georouter.compiler": {"CompileError": 1},
    "boundaries.cache": {"CacheBusyError": 5, "CacheError": 1},
    "boundaries.catalogue": {"UnknownSourceError": 4},
    "boundaries.drivers.driver": {"FileMissingError": 4},
    "boundaries.drivers.remote": {"RemoteError": 6},
    "boundaries.export": {"ExportConflictError": 5, "ExportError": 1},
    "boundaries.pictures": {"PictureError": 1},
    "scripts.export_reports": {"ExportRefused": 5},
    "boundaries.tables": {"BulkNotFoundError": 4, "BulkConflictError": 5, "BulkError": 1},
}


class UnreadableError(Exception):
    """Secrets that none of the keys opens."""


# --- the service ------------------------------------------------------------------------------


@app.command()
def serve() -> None:
    """Run a web process (GEOROUTER_HOST, GEOROUTER_PORT)."""
    import uvicorn

    from api.app import create_app
    from api.objects import open_objects
    from api.vault import open_vault

    settings = read_settings()
    # Found out here, a fault is one line; the server would log a traceback.
    open_vault(settings)
    open_objects(settings)
    with_database(_nothing)
    stderr.print(f"serving http://{settings.host}:{settings.port}, documented at /docs")
    web = create_app(settings)

    class Server(uvicorn.Server):
        """It waits for answers under way; streams of events would go on for ever."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            for hook in list(web.state.on_stop):
                hook()

    config = uvicorn.Config(
        web,
        host=settings.host,
        port=settings.port,
        log_config=None,
        lifespan="on",
        proxy_headers=False,  # whom to believe is a setting of ours
    )
    Server(config).run()


@app.command()
def worker() -> None:
    """Run a worker process, which forwards reports and routes again what changes hands."""
    from api.background import run_background
    from api.telemetry import configure

    configure()
    settings = read_settings()
    if settings.dry_run:
        stderr.print("DRY RUN: nothing is sent to anybody; GEOROUTER_DELIVERY_MODE=live sends")
    if sys.platform == "win32":
        asyncio.run(run_background(settings))
    else:
        import uvloop

        uvloop.run(run_background(settings))


@app.command()
def bounces(
    file: Annotated[
        typer.FileBinaryRead, typer.Argument(metavar="FILE|-", help="A raw mail; - is stdin.")
    ],
) -> None:
    """Note a mail that came back: its delivery is dead, for the council to see."""
    from api.delivery.bounces import read
    from api.delivery.outbox import bounce
    from api.store.mailings import bounced

    found = read(file.read())
    if found is None:
        raise NotFoundError("this is no bounce of a mail of ours")
    name = f"delivery {found.delivery_id}"
    if not found.failed:
        stderr.print(f"{name} is late; its mail server still tries")
    elif with_database(lambda conn: bounce(conn, found.delivery_id, found.diagnostic)):
        stderr.print(f"{name} is dead: {found.diagnostic}", markup=False)
    elif with_database(lambda conn: bounced(conn, found.delivery_id)):
        stderr.print("a follower's mail came back: they get no more")
    else:
        raise NotFoundError(f"there is no {name} that a mail was sent for, or it is dead already")


@app.command()
def migrate() -> None:
    """Bring the database to the schema of this version."""
    from api import db

    names = asyncio.run(db.migrate(db.resolve_dsn(read_settings())))
    for name in names:
        typer.echo(name)
    stderr.print(f"{len(names)} migrations run" if names else "the schema is current")
    _reseal(whole=False)


@app.command()
def demo(
    *,
    once: Annotated[bool, typer.Option("--once", help="Do the job once and exit.")] = False,
    port: Annotated[int, typer.Option(help="Port of the API; 0 takes a free one.")] = 0,
) -> None:
    """Show the whole job on an embedded database and the example country."""
    from scripts.demo import DemoError, run_demo

    try:
        sys.exit(run_demo(once=once, port=port))
    except DemoError as error:
        stderr.print(f"georouter demo: {error}", markup=False)
        sys.exit(1)


@app.command()
def stub(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8090,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    secret: Annotated[
        list[str] | None,
        typer.Option(help="Signing secret, whsec_...; repeatable. Without it nothing is checked."),
    ] = None,
    answer: Annotated[
        list[str] | None,
        typer.Option(
            help="Status, or drip, cut, lost, never; repeat it for one after the other, the last "
            "for ever. 200 by default."
        ),
    ] = None,
) -> None:
    """Receive webhooks as a council does: check signatures, show messages, answer challenges."""
    from scripts.stub import Stub, StubError, parse_answer, run_stub

    console = Console(highlight=False, soft_wrap=True)
    try:
        answers = [parse_answer(one) for one in answer or ["200"]]
        receiver = Stub(secret or [], answers, console=console, now=time.time)
        if not secret:
            console.print("no --secret: signatures are NOT checked")
        asyncio.run(run_stub(receiver, host=host, port=port, console=console))
    except StubError as error:
        raise UsageError(str(error)) from None


@db_app.command("stop")
def db_stop() -> None:
    """Stop the embedded database of the data directory."""
    from api import embedded

    stopped = embedded.stop(read_settings().data_dir / "postgres")
    stderr.print("stopped" if stopped else "it was not running")


@db_app.command("url")
def db_url() -> None:
    """Print the database's URL, for psql; starts the embedded one if need be."""
    from api import db

    typer.echo(db.resolve_dsn(read_settings()))


# --- secrets ----------------------------------------------------------------------------------


@secrets_app.command("key")
def secrets_key() -> None:
    """Print a new key for GEOROUTER_SECRET_KEYS."""
    from api.vault import new_key

    typer.echo(new_key())


@secrets_app.command("rotate")
def secrets_rotate() -> None:
    """Seal all secrets with the newest key."""
    if not _reseal():
        stderr.print("all secrets are sealed with the newest key")


def _reseal(*, whole: bool = True) -> int:
    from api.store.sealed import SEALED, Resealed, reseal
    from api.vault import open_vault

    vault = open_vault(read_settings())
    done: Resealed = with_database(
        lambda conn: reseal(conn, vault, SEALED if whole else SEALED[:1])
    )
    if done.changed:
        stderr.print(f"{done.changed} secrets sealed with the newest key")
    if done.unreadable:
        raise UnreadableError(
            f"{done.unreadable} secrets are sealed with a key that is not at hand; add it to "
            "GEOROUTER_SECRET_KEYS, behind the others"
        )
    return done.changed


# --- keys -------------------------------------------------------------------------------------


@keys_app.command("create")
def keys_create(
    role: Annotated[str, typer.Option(help="app, council or operator.")],
    label: Annotated[str, typer.Option(help="Whose key it is, for your own list.")],
    authority: Annotated[
        str | None, typer.Option(help="A council's authority: its id or code, e.g. E08000010.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires.")] = None,
    *,
    address_limit: Annotated[
        bool,
        typer.Option(
            "--address-limit/--no-address-limit",
            help="Without it: for a server through which many people ask, from one address.",
        ),
    ] = True,
) -> None:
    """Make an API key. It is printed once; only its hash is kept."""
    from api.auth import Role, create_key
    from api.store.authorities import resolve_authority

    if role not in set(Role):
        raise UsageError(f"--role must be one of {', '.join(Role)}, not {role!r}")
    if (role == Role.COUNCIL) != (authority is not None):
        raise UsageError("--authority goes with --role council, and only with it")
    expires = datetime.now(UTC) + timedelta(days=days) if days else None  # noqa: TID251 - the edge

    async def make(conn: Any) -> str:
        body = None
        if authority is not None:
            body = await resolve_authority(conn, authority)
            if body is None:
                raise NotFoundError(f"no authority has the id or code {authority!r}")
        key = await create_key(
            conn,
            role=Role(role),
            label=label,
            random_bytes=secrets.token_bytes,
            authority_id=body,
            expires_at=expires,
            address_limited=address_limit,
        )
        stderr.print(
            f"key {key.id} for {label!r}, role {role}; it is shown this once", markup=False
        )
        return key.secret

    typer.echo(with_database(make))


@keys_app.command("list")
def keys_list() -> None:
    """List all keys, without their secrets, as JSON lines."""
    from api.store.keys import list_keys

    for row in with_database(list_keys):
        typer.echo(json.dumps({name: _plain(value) for name, value in row.items()}))


@keys_app.command("revoke")
def keys_revoke(
    key: Annotated[str, typer.Argument(help="The key's id, from `keys list`.")],
) -> None:
    """Revoke a key at once."""
    from uuid import UUID

    from api.auth import revoke_key

    try:
        key_id = UUID(key)
    except ValueError:
        raise UsageError(f"{key!r} is no key id; `georouter keys list` shows them") from None
    if not with_database(lambda conn: revoke_key(conn, key_id)):
        raise NotFoundError(f"no key has the id {key}")
    stderr.print(f"key {key} is revoked")


async def _nothing(_conn: Any) -> None:
    """For the check that there is a database with the right schema."""


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.isoformat() if isinstance(value, datetime) else str(value)


# --- places ------------------------------------------------------------------------------------


@app.command()
def locate(
    dataset: Annotated[Path, typer.Option(help="A dataset folder made by `boundaries build`.")],
    lat: Annotated[float, typer.Option(help="Latitude, WGS 84 degrees.")],
    lon: Annotated[float, typer.Option(help="Longitude, WGS 84 degrees.")],
    category: Annotated[str, typer.Option(help="What it is about, e.g. pothole or litter.")],
    *,
    accuracy_m: Annotated[
        float | None, typer.Option(min=0, help="Radius of the position's uncertainty in metres.")
    ] = None,
    road_ref: Annotated[
        str | None, typer.Option(help="Number of the road that it is on, such as A12.")
    ] = None,
    chosen: Annotated[str | None, typer.Option(help="Code of the candidate that is meant.")] = None,
    as_of: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"], help="The day whose bodies count, e.g. 2027-04-01; else today."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say who is responsible at a place, straight from a dataset folder."""
    from api import london
    from api.routing import load_rules
    from boundaries.dataset import open_dataset
    from georouter.router import Router

    opened = open_dataset(dataset)
    rules = load_rules(read_settings().rules)
    router = Router(opened.index, rules=rules, dataset=opened.version, roads=opened.roads)
    decision = router.route(
        lon=lon,
        lat=lat,
        category=category,
        accuracy_m=accuracy_m,
        road_ref=road_ref,
        chosen=chosen,
        as_of=as_of.date() if as_of else london.day_of(time.time()),
    )
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(decision), default=str))
    elif decision.responsible is None:
        typer.echo(f"nobody ({decision.state})")
    else:
        found = decision.responsible
        typer.echo(f"{found.name} ({found.code}, {decision.state})")
    stderr.print(f"{decision.reason}; rule {decision.rule}, {decision.dataset}", markup=False)
    if decision.question:
        stderr.print(f"to ask: {decision.question} Answer with --chosen CODE:", markup=False)
        for one in decision.candidates:
            stderr.print(f"  {one.code}  {one.name}: {one.reason}", markup=False)
    if decision.responsible is None:
        sys.exit(4)


@app.command()
def explain(
    report: Annotated[str, typer.Argument(help="The report's id.")],
    *,
    as_json: Json = False,
) -> None:
    """Say why a report is where it is, and whether today's dataset would decide otherwise."""
    from uuid import UUID

    from api import explain as explaining
    from api import london
    from api.artefacts import Artefacts
    from api.routing import load_rules

    try:
        report_id = UUID(report)
    except ValueError:
        raise UsageError(f"{report!r} is no report id; the receipt has it") from None
    settings = read_settings()
    rules = load_rules(settings.rules)
    today = london.day_of(time.time())
    opener = Artefacts.of(settings).open

    def ask(conn: Any) -> Any:
        return explaining.explain(conn, report_id, rules=rules, today=today, open_version=opener)

    found = with_database(ask)
    if found is None:
        raise NotFoundError(f"no report has the id {report}")
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found)))
    else:
        typer.echo("\n".join(found.sentences))


@app.command()
def route(
    file: Annotated[Path, typer.Argument(help="Points: .csv, .csv.gz or .parquet.")],
    dataset: Annotated[Path, typer.Option(help="A dataset folder made by `boundaries build`.")],
    out: Annotated[Path, typer.Option(help="File to make: .csv, .csv.gz or .parquet.")],
    layer: Annotated[
        list[str] | None, typer.Option(help="A layer to ask; repeat it. All by default.")
    ] = None,
    lon_field: Annotated[
        str | None, typer.Option(help="Column with longitudes; by default lon or longitude.")
    ] = None,
    lat_field: Annotated[
        str | None, typer.Option(help="Column with latitudes; by default lat or latitude.")
    ] = None,
    bad: Annotated[
        Path | None, typer.Option(help="CSV for rows without a usable place; OUT.bad.csv.")
    ] = None,
    *,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was broken off.")
    ] = False,
) -> None:
    """Add the authority's code and name, per layer, to a file of points.

    Points are in columns lon and lat, or easting and northing (British National Grid).
    """
    if (lon_field is None) != (lat_field is None):
        raise UsageError("--lon-field and --lat-field go together")
    from boundaries.bulk import route_file
    from boundaries.dataset import open_dataset

    opened = open_dataset(dataset)
    try:
        with progress_bar() as progress:
            done = route_file(
                file,
                out,
                opened,
                layers=layer or (),
                fields=(lon_field, lat_field) if lon_field and lat_field else None,
                bad=bad,
                resume=resume,
                say=lambda text: stderr.print(text, markup=False),
                progress=progress,
            )
    except KeyboardInterrupt:
        stderr.print("interrupted; --resume goes on from the last whole part")
        raise
    stderr.print(
        f"{out}: {done.rows:,} rows in, {done.routed:,} routed, {done.uncovered:,} uncovered, "
        f"{done.bad:,} bad{f' (see {done.bad_file})' if done.bad_file else ''}",
        markup=False,
    )


if __name__ == "__main__":
    main()
