"""The whole job on one machine: example country, embedded database, web, worker, and councils.

It starts the real commands as processes of their own, registers an intake webhook for every council
but one, posts a report of each kind at every golden point, and checks that each arrived where the
golden table says, signed, exactly once. It leaves nothing running and nothing on disk.
"""

from __future__ import annotations

import asyncio
import csv
import json
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from rich.console import Console
from rich.table import Table
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api import db, embedded
from api.activation import activate
from api.artefacts import Artefacts
from api.auth import Role, create_key
from api.delivery import signing
from api.routing import load_rules
from boundaries import sample
from boundaries.build import build_dataset

LATE = "D06000005"  # registers its webhook only after its reports have been posted
WAIT_S = 30.0

console = Console(highlight=False, soft_wrap=True)


@dataclass(slots=True)
class Councils:
    """The intake webhooks of all councils, as one little server that trusts nobody."""

    secrets: dict[str, str] = field(default_factory=dict)
    arrived: Counter[tuple[str, str]] = field(default_factory=Counter)  # (code, description)
    refused: list[str] = field(default_factory=list)

    def app(self) -> Starlette:
        """POST /intake/{code} checks the signature; answers with a reference, or the challenge."""
        return Starlette(routes=[Route("/intake/{code}", self._receive, methods=["POST"])])

    async def _receive(self, request: Request) -> Response:
        code = request.path_params["code"]
        body = await request.body()
        if (
            code not in self.secrets
        ):  # the challenge was quicker than the answer that has the secret
            return JSONResponse({"error": "not ready"}, status_code=503)
        try:
            signing.verify(self.secrets[code], dict(request.headers), body, now=time.time())
        except signing.InvalidSignature as error:
            self.refused.append(f"{code}: {error}")
            return JSONResponse({"error": "not signed by georouter"}, status_code=401)
        message = json.loads(body)
        if message["type"] == "endpoint.challenge":
            return JSONResponse({"challenge": message["data"]["challenge"]})
        report = message["data"]["report"]
        self.arrived[code, report["description"]] += 1
        return JSONResponse({"reference": f"{code}/{len(self.arrived):04}"}, status_code=201)


@dataclass(frozen=True, slots=True)
class Expected:
    """A report to post and the council it must reach; no code where nobody is responsible."""

    lon: float
    lat: float
    category: str
    code: str
    note: str

    @property
    def description(self) -> str:
        """What the citizen writes; here also the mark by which the arrival is recognised."""
        return f"{self.category} at {self.lon}, {self.lat} ({self.note})"


def run_demo(*, once: bool, port: int) -> int:
    """Run the demo; 0 only if every report arrived where it should.

    With `once` it ends by itself, otherwise on Ctrl-C.
    """
    # both signals run the clean-up below, also where a shell started us with SIGINT ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    with ExitStack() as stack:
        data_dir = stack.enter_context(temporary_folder())
        console.print("starting an embedded PostgreSQL ...")
        stack.callback(embedded.stop, data_dir / "postgres")
        dsn = embedded.ensure(data_dir / "postgres")
        return asyncio.run(_demo(data_dir, dsn, once=once, port=port or free_port()))


async def _demo(data_dir: Path, dsn: str, *, once: bool, port: int) -> int:
    councils = Councils()
    intake_port = free_port()
    keys = await _prepare(data_dir, dsn)
    environment = {
        "PATH": "/usr/bin:/bin",
        "GEOROUTER_DATABASE_URL": dsn,
        "GEOROUTER_DATA_DIR": str(data_dir),
        "GEOROUTER_PORT": str(port),
        "GEOROUTER_EGRESS_ALLOW": '["127.0.0.0/8"]',
        "GEOROUTER_DELIVERY_MODE": "live",  # to the demo's own councils
    }
    base = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        stack.enter_context(serve_app(councils.app(), intake_port))
        for command in ("serve", "worker"):
            log = data_dir / f"{command}.log"
            stack.enter_context(georouter_process(command, environment, log))
        async with httpx.AsyncClient(base_url=base, timeout=10.0, trust_env=False) as client:
            await wait_until_ready(client, data_dir / "serve.log")
            intake = f"http://127.0.0.1:{intake_port}/intake"
            good = await _show(client, keys, councils, intake)
            if not once:
                _print_urls(base, keys)
                await asyncio.Event().wait()
    return 0 if good else 1


async def _prepare(data_dir: Path, dsn: str) -> dict[str, str]:
    """Migrate, build the example country, put it in force, and make keys."""
    await db.migrate(dsn)
    console.print("building Doggerland, an invented country, and proving its index ...")
    out = data_dir / "doggerland"
    now = datetime.now(UTC)  # noqa: TID251 - the edge
    manifest = build_dataset(sample.layer_files(), out, built_at=now, proof_points=7_000)
    rules = load_rules(None)
    artefacts = Artefacts(data_dir / "datasets")
    await activate(out, rules=rules, artefacts=artefacts, dsn=dsn, commit=True)
    console.print(f"  {manifest['version']}: {_count(manifest)} areas, in force")
    conn = await db.connect(dsn)
    try:
        return {
            role: (
                await create_key(
                    conn, role=role, label=f"demo {role}", random_bytes=secrets.token_bytes
                )
            ).secret
            for role in (Role.APP, Role.OPERATOR)
        }
    finally:
        await conn.close()


async def _show(
    client: httpx.AsyncClient, keys: dict[str, str], councils: Councils, intake: str
) -> bool:
    app = {"Authorization": f"Bearer {keys['app']}"}
    operator = {"Authorization": f"Bearer {keys['operator']}"}
    bodies = await _authorities(client, operator)
    for code, body in bodies.items():
        if code != LATE:
            await _register(client, operator, body["id"], f"{intake}/{code}", councils, code)
    late = bodies[LATE]["name"]
    others = [body["id"] for code, body in bodies.items() if code != LATE]
    await wait_until_active(client, operator, others)
    console.print(f"{len(bodies) - 1} councils registered webhooks; {late} has not")

    expected = golden()
    started = time.perf_counter()
    ids: dict[Expected, str] = {}
    refused = 0
    for report in expected:
        answer = await _post(client, app, report)
        again = await _post(client, app, report)  # the phone did not hear, and sends it again
        if report.code:
            ids[report] = answer["id"]
            _must(again["id"] == answer["id"], f"a repeated post made a second report: {report}")
        else:
            refused += 1
            _must("outside-service-area" in answer.get("type", ""), f"taken at sea: {report}")
    console.print(f"{len(ids)} reports posted, each twice; {refused} at sea were refused")

    on_time = {report: i for report, i in ids.items() if report.code != LATE}
    states = await _settled(client, app, on_time, "forwarded")
    states |= await _settled(client, app, {r: i for r, i in ids.items() if r.code == LATE}, "held")
    held = sum(state["state"] == "held" for state in states.values())
    console.print(f"{held} reports for {late} are held; now it registers its webhook")
    await _register(client, operator, bodies[LATE]["id"], f"{intake}/{LATE}", councils, LATE)
    states = await _settled(client, app, ids, "forwarded")
    console.print(f"done in {time.perf_counter() - started:.1f} s\n")

    wanted = Counter({(report.code, report.description): 1 for report in ids})
    _print_table(bodies, states, councils)
    for code, description in wanted - councils.arrived:
        console.print(f"[red]did not arrive at {code}: {description}", markup=True)
    for code, description in councils.arrived - wanted:
        console.print(f"[red]should not have arrived at {code}: {description}", markup=True)
    for refusal in councils.refused:
        console.print(f"[red]refused by a council: {refusal}")
    good = councils.arrived == wanted and not councils.refused and held > 0
    answered = all(state["deliveries"][0]["reference"] for state in states.values())
    console.print(
        f"{councils.arrived.total()} deliveries, {len(wanted)} expected: "
        + ("every report arrived where it should, once, signed" if good else "NOT as it should be")
    )
    return good and answered


def golden() -> list[Expected]:
    """A pothole and a heap of litter at every golden point of the example country."""
    with sample.GOLDEN.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Expected(float(row["lon"]), float(row["lat"]), category, row[layer], row["note"])
        for row in rows
        for category, layer in (("pothole", "highway"), ("litter", "district"))
    ]


async def _authorities(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> dict[str, dict[str, Any]]:
    answer = await client.get("/v1/authorities", params={"limit": 200}, headers=headers)
    answer.raise_for_status()
    return {body["codes"][0]["code"]: body for body in answer.json()["items"]}


async def _register(
    client: httpx.AsyncClient,
    headers: dict[str, str],
    authority: str,
    url: str,
    councils: Councils,
    code: str,
) -> None:
    answer = await client.post(
        f"/v1/authorities/{authority}/endpoints",
        json={"channel": "webhook", "url": url},
        headers=headers,
    )
    answer.raise_for_status()
    councils.secrets[code] = answer.json()["secret"]


async def _post(
    client: httpx.AsyncClient, headers: dict[str, str], report: Expected
) -> dict[str, Any]:
    answer = await client.post(
        "/v1/reports",
        json={
            "lon": report.lon,
            "lat": report.lat,
            "category": report.category,
            "description": report.description,
            "accuracy_m": 5,
        },
        headers={**headers, "Idempotency-Key": f"demo {report.category} {report.lon} {report.lat}"},
    )
    if answer.status_code not in {201, 422}:
        answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


async def _settled(
    client: httpx.AsyncClient, headers: dict[str, str], ids: dict[Expected, str], wanted: str
) -> dict[Expected, dict[str, Any]]:
    """Read the reports' state as an app does, until all are as wanted or time is up."""
    deadline = time.monotonic() + WAIT_S
    states: dict[Expected, dict[str, Any]] = {}
    while time.monotonic() < deadline and len(states) < len(ids):
        for report, report_id in ids.items():
            if report not in states:
                state = (await client.get(f"/v1/reports/{report_id}", headers=headers)).json()
                if state["state"] == wanted:
                    states[report] = state
        await asyncio.sleep(0.1)
    _must(len(states) == len(ids), f"{len(ids) - len(states)} reports are not {wanted}")
    return states


# --- processes --------------------------------------------------------------------------------


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A data directory for a while, which the user that runs PostgreSQL can enter."""
    folder = Path(tempfile.mkdtemp(prefix="georouter-demo-"))
    folder.chmod(0o711)  # the user that runs PostgreSQL for root passes through it
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def georouter_process(command: str, environment: dict[str, str], log: Path) -> Iterator[int]:
    """A georouter command as a process, asked to stop and waited for at the end; gives its id."""
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "scripts.cli", command],
            cwd=Path(__file__).parent.parent,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C reaches us alone; we stop it in good order
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def serve_app(app: Starlette, port: int) -> Iterator[None]:
    """Serve an application on loopback, in a thread of its own."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="off")
    )
    thread = threading.Thread(target=server.run, name=f"server on {port}")
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()


async def wait_until_active(
    client: httpx.AsyncClient, headers: dict[str, str], authorities: Sequence[str]
) -> None:
    """Wait until every endpoint of these authorities has passed its challenge."""
    deadline = time.monotonic() + WAIT_S
    for authority in authorities:
        while True:
            answer = await client.get(f"/v1/authorities/{authority}/endpoints", headers=headers)
            found = answer.json()["items"]
            if all(one["state"] == "active" for one in found):
                break
            _must(time.monotonic() < deadline, f"an endpoint is not active: {found}")
            await asyncio.sleep(0.1)


async def wait_until_ready(client: httpx.AsyncClient, log: Path) -> None:
    """Wait for a web process; raises `DemoError` with the end of its log when it does not come."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            if (await client.get("/readyz")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    said = log.read_text()  # noqa: ASYNC240 - the demo is over
    _must(False, f"the web process is not ready; it said:\n{said[-2000:]}")


def free_port() -> int:
    """A port of loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _interrupt(_signal: int, _frame: object) -> None:
    signal.raise_signal(signal.SIGINT)


def _must(held: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not held:
        raise DemoError(otherwise)


class DemoError(Exception):
    """The demo did not go as it should."""


# --- what is shown ----------------------------------------------------------------------------


def _count(manifest: dict[str, Any]) -> int:
    return sum(layer["areas"] for layer in manifest["layers"])


def _print_table(
    bodies: dict[str, dict[str, Any]], states: dict[Expected, dict[str, Any]], councils: Councils
) -> None:
    table = Table("authority", "code", "reports", "arrived", "a report and the council's answer")
    for code, body in sorted(bodies.items()):
        mine = [(report, state) for report, state in states.items() if report.code == code]
        if not mine:
            continue
        report, state = mine[0]
        table.add_row(
            body["name"],
            code,
            str(len(mine)),
            str(sum(n for (to, _), n in councils.arrived.items() if to == code)),
            f"{report.category}, {report.note}: {state['deliveries'][0]['reference']}",
        )
    console.print(table)


def _print_urls(base: str, keys: dict[str, str]) -> None:
    console.print(f"""
It stays up until Ctrl-C:
  API documentation   {base}/docs
  readiness           {base}/readyz
  key of an app       {keys["app"]}
  key of an operator  {keys["operator"]}

  curl -H 'Authorization: Bearer {keys["app"]}' \\
    '{base}/v1/locate?lon=2.12&lat=54.71&category=pothole'
""")
