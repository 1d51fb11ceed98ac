"""Nothing is lost: posts reports while processes and PostgreSQL are killed, and counts at the end.

Everything is real: an embedded PostgreSQL, two web processes and two workers as operators start
them, fifty councils over sockets, ten of which misbehave. Who is responsible is known from the
square that a report was put in, what arrived from the councils themselves; the database is only
asked why something has not. The last line is JSON; exit code 1 if the promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import asyncpg

from api import db, embedded
from api.activation import activate
from api.artefacts import Artefacts
from api.auth import Role, create_key
from api.routing import load_rules
from api.vault import new_key
from boundaries.build import build_dataset
from scripts.apps import Client
from scripts.councils import (
    COUNCILS,
    LATE,
    UNSETTLED,
    WHERE,
    Evidence,
    Intakes,
    code,
    excused,
    judge,
    report,
    squares,
)
from scripts.demo import free_port, temporary_folder
from scripts.stub import listening

CLIENTS: Final = 12
REPEATED_POSTS: Final = 0.05  # answered, and sent again all the same
HUNG_UP: Final = 0.03  # sent, and the answer not waited for
CALM_S: Final = 120.0  # for what has to happen while nothing is killed
DRAIN_S: Final = 180.0
EVIDENCE: Final = "evidence"

Kill = Literal["worker", "web", "database", "backend"]
# In this order the first four kills, so that a short run has one of each; then by the seed.
KILLS: Final[Sequence[Kill]] = ("worker", "web", "database", "backend")


def main() -> int:
    """Run it; 0 if nothing was lost, doubled or sent to a wrong council."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, default=2_000)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for logs, answers, payloads and a dump")
    asked = parser.parse_args()
    # Both signals run the clean-up below, also where a shell started us with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        stack.callback(embedded.stop, folder / "postgres")
        run = _Run(folder, asked.reports, asked.kills, asked.seed, keep=asked.keep)
        figures = asyncio.run(run.run())
    print(json.dumps(figures))
    broken = ("lost", "misrouted", "doubled", "faults")
    return 1 if any(figures[name] for name in broken) else 0


# --- the service's processes ----------------------------------------------------------------------


class _Process:
    """A georouter command that is started again whenever it has ended, until it is stopped."""

    def __init__(self, command: str, environment: Mapping[str, str], log: Path) -> None:
        self._arguments = [sys.executable, "-m", "scripts.cli", command]
        self._environment = environment
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.ended_by_itself = 0

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                self._arguments,
                cwd=Path(__file__).parent.parent,
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop it in good order
            )

    def look_after(self) -> None:
        """Start it again if it has ended: a web process does when there is no database."""
        if self._process is not None and self._process.poll() is not None:
            self.ended_by_itself += 1
            self.start()

    def kill(self) -> None:
        """Kill -9, and start again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.start()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _kill_database(folder: Path, *, whole: bool, chance: random.Random) -> None:
    """Kill -9 PostgreSQL with all its processes, or one of these, which makes it start afresh."""
    postmaster = embedded.postmaster_pid(folder)
    if postmaster is None:
        return
    # They are no group: each has a session of its own.
    children = _children(postmaster)
    victims = [postmaster, *children] if whole else [chance.choice(children)] if children else []
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # pid (name) state parent ...
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return sorted(found)


# --- the run --------------------------------------------------------------------------------------


class _Run:
    def __init__(
        self, folder: Path, reports: int, kills: int, seed: int, *, keep: Path | None
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._reports = reports
        self._seed = seed
        self._chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._plan: list[Kill] = [*KILLS, *self._chance.choices(KILLS, k=kills)][:kills]
        self._seen = Evidence()
        if keep is not None:
            self._seen.answers, self._seen.payloads = [], []
        self._kills: Counter[Kill] = Counter()
        self._intakes = Intakes(self._seen, random.Random(seed))  # noqa: S311
        self._ports = [free_port(), free_port()]
        self._vault_key = new_key()
        self._calm = asyncio.Lock()  # nothing is killed while somebody has it
        self._progress = asyncio.Condition()
        self._posting = asyncio.Event()  # not while somebody registers: kills belong under load
        self._posting.set()

    async def run(self) -> dict[str, Any]:
        """All of it; returns the figures."""
        started = time.monotonic()
        dsn = await asyncio.to_thread(embedded.ensure, self._folder / "postgres")
        keys = await self._prepare(dsn)
        environment = {
            "PATH": os.defpath,
            "GEOROUTER_DATABASE_URL": dsn,
            "GEOROUTER_DATA_DIR": str(self._folder),
            "GEOROUTER_SECRET_KEYS": self._vault_key,
            "GEOROUTER_EGRESS_ALLOW": '["127.0.0.0/8"]',
            "GEOROUTER_DELIVERY_MODE": "live",  # to the councils of this run
            "GEOROUTER_DELIVERY_TIMEOUT_S": "3",
            "GEOROUTER_DATASET_POLL_S": "0.5",
            "GEOROUTER_RATE_KEY": "off",
        }
        webs = [
            _Process(
                "serve",
                {**environment, "GEOROUTER_PORT": str(port)},
                self._folder / f"web-{n}.log",
            )
            for n, port in enumerate(self._ports)
        ]
        workers = [
            _Process("worker", environment, self._folder / f"worker-{n}.log") for n in range(2)
        ]
        processes = [*webs, *workers]
        async with listening(self._intakes.handle) as port:
            intake = f"http://127.0.0.1:{port}/intake"
            try:
                for process in processes:
                    process.start()
                async with self._looked_after(processes):
                    await self._register(
                        keys["operator"], intake, frozenset(range(COUNCILS)) - LATE
                    )
                    _say(f"{COUNCILS - len(LATE)} councils registered; posting {self._reports}")
                    await self._post_all(keys, intake, webs, workers)
                    posted_s = time.monotonic() - started
                    _say(f"all answered 201 after {posted_s:.0f} s; waiting for deliveries")
                    await self._ask_what_is_refused(keys)
                    await self._drain(dsn)
            finally:
                for process in processes:
                    await asyncio.to_thread(process.stop)
        return await self._count(dsn, keys, time.monotonic() - started, processes)

    async def _prepare(self, dsn: str) -> dict[str, str]:
        await db.migrate(dsn)
        file = self._folder / "squares.geojson"
        file.write_text(json.dumps(squares()))
        out = self._folder / "squares"
        now = datetime.now(UTC)  # noqa: TID251 - the edge
        layers = {"highway": file, "district": file}
        await asyncio.to_thread(build_dataset, layers, out, built_at=now, proof_points=1_000)
        artefacts = Artefacts(self._folder / "datasets")
        await activate(out, rules=load_rules(None), artefacts=artefacts, dsn=dsn, commit=True)
        conn = await db.connect(dsn)
        try:
            made = {
                str(role): await create_key(
                    conn, role=role, label="chaos", random_bytes=secrets.token_bytes
                )
                for role in (Role.APP, Role.OPERATOR)
            }
        finally:
            await conn.close()
        return {name: key.secret for name, key in made.items()}

    @asynccontextmanager
    async def _looked_after(self, processes: Sequence[_Process]) -> AsyncIterator[None]:
        async def look() -> None:
            while True:
                await asyncio.sleep(0.2)
                for process in processes:
                    process.look_after()

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(look())
            try:
                yield
            finally:
                task.cancel()

    # --- registering

    async def _register(self, key: str, intake: str, councils: frozenset[int]) -> None:
        async with (
            self._calm,
            asyncio.timeout(CALM_S),
            Client(self._ports, self._seen.answers) as client,
        ):
            listed = await client.insist("GET", "/v1/authorities?limit=200", key)
            ids = {body["codes"][0]["code"]: body["id"] for body in listed["items"]}
            links = []
            for council in sorted(councils):
                path = f"/v1/authorities/{ids[code(council)]}/endpoints"
                secret = self._intakes.expect(council)
                made = await client.insist(
                    "POST", path, key, {"channel": "webhook", "url": f"{intake}/{council}"}
                )
                secret.set_result(made["secret"])
                links.append(f"{path}/{made['id']}")
            for link in links:
                while (await client.insist("GET", link, key))["state"] == "pending":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    # --- posting and killing

    async def _post_all(
        self,
        keys: Mapping[str, str],
        intake: str,
        webs: Sequence[_Process],
        workers: Sequence[_Process],
    ) -> None:
        numbers = iter(range(self._reports))
        async with asyncio.timeout(CALM_S + self._reports / 10), asyncio.TaskGroup() as tasks:
            for n in range(CLIENTS):
                chance = random.Random(f"{self._seed} {n}")  # noqa: S311
                tasks.create_task(self._post(numbers, keys["app"], chance))
            tasks.create_task(self._kill(webs, workers))
            await self._until(self._reports // 2)
            self._posting.clear()
            await self._register(keys["operator"], intake, LATE)
            self._posting.set()

    async def _post(self, numbers: Any, key: str, chance: random.Random) -> None:
        """One app, on a bad line."""
        async with Client(self._ports, self._seen.answers, chance) as client:
            for number in numbers:
                await self._posting.wait()
                posted = report(number, chance)
                self._seen.posted[number] = posted
                label = f"chaos {self._seed} {number}"
                if chance.random() < HUNG_UP:
                    await client.send_and_hang_up("/v1/reports", key, posted.body, label)
                receipt = await client.insist("POST", "/v1/reports", key, posted.body, label)
                self._seen.acknowledged[number] = receipt["id"]
                if chance.random() < REPEATED_POSTS:
                    again = await client.insist("POST", "/v1/reports", key, posted.body, label)
                    if again != receipt:
                        self._seen.faults.append(f"report {number} answered {receipt}, {again}")
                async with self._progress:
                    self._progress.notify_all()

    async def _until(self, count: int) -> None:
        async with self._progress:
            await self._progress.wait_for(lambda: len(self._seen.acknowledged) >= count)

    async def _kill(self, webs: Sequence[_Process], workers: Sequence[_Process]) -> None:
        """Kill by the plan, evenly over the reports."""
        postgres = self._folder / "postgres"
        for n, kind in enumerate(self._plan, start=1):
            await self._until(n * self._reports // (len(self._plan) + 1))
            async with self._calm:
                match kind:
                    case "worker":
                        self._chance.choice(workers).kill()
                    case "web":
                        self._chance.choice(webs).kill()
                    case "backend":
                        _kill_database(postgres, whole=False, chance=self._chance)
                    case "database":
                        _kill_database(postgres, whole=True, chance=self._chance)
                        await asyncio.to_thread(embedded.ensure, postgres)
                self._kills[kind] += 1
            if n % max(1, len(self._plan) // 10) == 0:
                _say(f"{n} killed, {len(self._seen.acknowledged)} answered 201")

    # --- the end

    async def _ask_what_is_refused(self, keys: Mapping[str, str]) -> None:
        """Requests that end in problems, and lists: none may show a secret."""
        if self._seen.answers is None:
            return
        async with Client(self._ports, self._seen.answers) as client:
            listed = await client.insist("GET", "/v1/authorities?limit=200", keys["operator"])
            path = f"/v1/authorities/{listed['items'][0]['id']}"
            for key in (*keys.values(), "grk_" + "x" * 43, "nonsense"):
                for what in ("endpoints", "deliveries", "notices"):
                    await client.ask("GET", f"{path}/{what}", key)
                await client.ask("POST", f"{path}/endpoints", key, {"channel": "pigeon"})
                await client.ask("POST", "/v1/reports", key, {"secret": key})

    async def _drain(self, dsn: str) -> None:
        """Wait until all that can be delivered is."""
        conn = await db.connect(dsn)
        deadline = time.monotonic() + DRAIN_S
        try:
            while time.monotonic() < deadline:
                left: int = await conn.fetchval(UNSETTLED, excused())
                if left == 0:
                    return
                await asyncio.sleep(0.3)
            _say(f"{left} are still on their way after {DRAIN_S:.0f} s")
        finally:
            await conn.close()

    async def _count(
        self,
        dsn: str,
        keys: Mapping[str, str],
        took_s: float,
        processes: Sequence[_Process],
    ) -> dict[str, Any]:
        conn = await db.connect(dsn)
        try:
            rows: list[asyncpg.Record] = await conn.fetch(WHERE)
            if self._keep is not None:
                await self._keep_evidence(conn, keys, self._keep)
        finally:
            await conn.close()
        tally = judge(self._seen, rows)
        for fault in [*tally.details, *self._seen.faults][:20]:
            _say(fault)
        return {
            "acknowledged": len(self._seen.acknowledged),
            "delivered": tally.delivered,
            "waiting": tally.waiting.total(),
            "lost": tally.lost,
            "repeated": self._seen.repeated,
            "misrouted": tally.misrouted,
            "doubled": tally.doubled,
            "faults": len(self._seen.faults),
            "kills": self._kills.total(),
            "killed": dict(self._kills),
            "restarts": sum(process.ended_by_itself for process in processes),
            "waiting_because": dict(tally.waiting),
            "took_s": round(took_s, 1),
            "seed": self._seed,
        }

    async def _keep_evidence(
        self, conn: asyncpg.Connection, keys: Mapping[str, str], folder: Path
    ) -> None:
        found = folder / EVIDENCE
        found.mkdir(parents=True)
        for log in (*self._folder.glob("*.log"), self._folder / "postgres" / "log"):
            shutil.copy(log, found / log.name)
        (found / "answers").write_text("\n".join(self._seen.answers or []))
        (found / "payloads").write_text("\n".join(self._seen.payloads or []))
        tables = await conn.fetch(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        )
        with (found / "dump").open("w", encoding="utf-8") as file:
            for (name,) in tables:
                for (row,) in await conn.fetch(f'SELECT x::text FROM "{name}" AS x'):
                    file.write(f"{name} {row}\n")
        kept = {
            "endpoints": self._intakes.secrets(),
            "keys": list(keys.values()),
            "vault": self._vault_key,
        }
        (folder / "secrets.json").write_text(json.dumps(kept))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
