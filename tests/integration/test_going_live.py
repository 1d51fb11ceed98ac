"""Datasets from staged to pruned: by the operator's commands, by several at once, and killed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from api import activation, db, london
from api.artefacts import Artefacts
from api.routing import load_rules
from api.store import datasets
from api.store.datasets import list_datasets
from boundaries import sample
from boundaries.build import build_dataset
from boundaries.dataset import INDEX, MANIFEST, open_dataset

ROOT = Path(__file__).parents[2]
BUILT_AT = datetime(2026, 11, 23, tzinfo=UTC)
YEAR = datetime.now(UTC).year + 2  # noqa: TID251 - the commands look at the clock


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three datasets that differ, by name."""
    files = sample.layer_files()
    layers = {
        "both": files,
        "swapped": dict(reversed(files.items())),
        "highway": {"highway": files["highway"], "district": files["highway"]},
    }
    folder = tmp_path_factory.mktemp("versions")
    for name, given in layers.items():
        build_dataset(given, folder / name, built_at=BUILT_AT, proof_points=1_000)
    return {name: folder / name for name in layers}


@pytest.fixture
def versions(folders: dict[str, Path]) -> dict[str, str]:
    return {name: open_dataset(folder).version for name, folder in folders.items()}


@pytest.fixture
def artefacts(tmp_path: Path) -> Artefacts:
    return Artefacts(tmp_path / "data" / "datasets")  # where the commands have it


@pytest.fixture
def activate(artefacts: Artefacts, database_url: str) -> Callable[..., Any]:
    return partial(
        activation.activate,
        rules=load_rules(None),
        artefacts=artefacts,
        dsn=database_url,
        commit=True,
    )


@pytest.fixture
def roll_back(artefacts: Artefacts, database_url: str) -> Callable[..., Any]:
    return partial(
        activation.roll_back,
        rules=load_rules(None),
        artefacts=artefacts,
        dsn=database_url,
        commit=True,
    )


async def in_force(pool: asyncpg.Pool) -> str | None:
    async with db.acquire(pool) as conn:
        active = await datasets.active_dataset(conn)
    return str(active["version"]).split("-")[0] if active else None


async def listed(pool: asyncpg.Pool, at: datetime | None = None) -> list[tuple[Any, ...]]:
    async with db.acquire(pool) as conn:
        rows = await list_datasets(conn, at=at)
    return [(row["version"].split("-")[0], row["from_at"], row["state"]) for row in rows]


async def audited(pool: asyncpg.Pool) -> list[tuple[str, Any]]:
    rows = await pool.fetch("SELECT action, detail FROM audit ORDER BY id")
    return [(row["action"].removeprefix("dataset."), row["detail"]) for row in rows]


def kept(artefacts: Artefacts) -> set[str]:
    """What is in the store, but for its lock."""
    if not artefacts.folder.exists():
        return set()
    return {one.name for one in artefacts.folder.iterdir() if one.name != ".lock"}


# --- in force on a day ----------------------------------------------------------------------------


async def test_days_begin_at_midnight_in_the_united_kingdom(
    folders: dict[str, Path], activate: Callable[..., Any], pool: asyncpg.Pool
) -> None:
    summer, winter = datetime(YEAR, 3, 31, 23, tzinfo=UTC), datetime(YEAR, 1, 1, tzinfo=UTC)
    for name, day in (("swapped", f"{YEAR}-04-01"), ("both", f"{YEAR}-01-01")):
        await activate(folders[name], from_at=london.parse_instant(day))
    moment = timedelta(microseconds=1)
    for at, states in (
        (winter - moment, ["planned", "planned"]),
        (winter, ["active", "planned"]),
        (summer - moment, ["active", "planned"]),
        (summer, ["retired", "active"]),
    ):
        assert await listed(pool, at) == [
            ("both", winter, states[0]),
            ("swapped", summer, states[1]),
        ]
    assert [(action, detail["from"]) for action, detail in await audited(pool)] == [
        ("activated", summer.isoformat()),
        ("activated", winter.isoformat()),
    ]


async def test_every_time_in_force_is_listed(
    folders: dict[str, Path],
    versions: dict[str, str],
    activate: Callable[..., Any],
    pool: asyncpg.Pool,
    database_url: str,
) -> None:
    begins = [london.parse_instant(f"{YEAR}-{month:02}-01") for month in (4, 5, 6)]
    await activate(folders["both"], from_at=begins[0])
    await activate(folders["swapped"], from_at=begins[1])
    await activate(folders["both"], from_at=begins[2])
    await activate(folders["highway"], from_at=begins[0])
    # that of the first of April was planned over: it never decides
    assert await listed(pool, begins[1]) == [
        ("highway", begins[0], "retired"),
        ("swapped", begins[1], "active"),
        ("both", begins[2], "planned"),
    ]
    await activation.withdraw(versions["both"], dsn=database_url, commit=True)
    assert await listed(pool, begins[2]) == [
        ("both", None, "staged"),
        ("highway", begins[0], "retired"),
        ("swapped", begins[1], "active"),
    ]


# --- the commands ---------------------------------------------------------------------------------


async def test_from_staged_to_in_force_and_back(
    folders: dict[str, Path],
    versions: dict[str, str],
    georouter: Any,
    artefacts: Artefacts,
    pool: asyncpg.Pool,
) -> None:
    async def told(*arguments: str) -> Any:
        done = await georouter(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    # staged: in the store, deciding nothing, and a dry run not even there
    dry = await georouter("stage", str(folders["both"]))
    assert "dry run: nothing was changed" in dry.stderr
    assert (kept(artefacts), await listed(pool)) == (set(), [])
    staged = await told("stage", str(folders["both"]), "--commit")
    assert staged == {
        "version": versions["both"],
        "changed": True,
        "areas": len(open_dataset(folders["both"]).index.areas),
        "committed": True,
    }
    assert kept(artefacts) == {versions["both"]}
    assert (await told("stage", str(folders["both"]), "--commit"))["changed"] is False
    assert await listed(pool) == [("both", None, "staged")]

    # by a beginning of its version, from any folder
    done = await told("activate", "bo", "--commit")
    assert (done["version"], done["before"], done["planned"]) == (versions["both"], None, [])
    # a folder in one step, and a plan that stays
    await told("activate", str(folders["highway"]), "--at", f"{YEAR}-04-01T06:00", "--commit")
    planned = {"version": versions["highway"], "from": f"{YEAR}-04-01T05:00:00Z"}
    done = await told("activate", str(folders["swapped"]), "--commit")
    assert (done["before"], done["planned"]) == (versions["both"], [planned])

    # back, with a word on what is still to come
    dry = await georouter("rollback")
    assert dry.stdout.startswith(f"{versions['both']} in place of {versions['swapped']}: ")
    assert f"{versions['highway']} is still planned from {planned['from']}" in dry.stderr
    assert await in_force(pool) == "swapped"
    done = await told("rollback", "--commit")
    assert (done["version"], done["before"]) == (versions["both"], versions["swapped"])
    assert await in_force(pool) == "both"
    refused = await georouter("rollback", "--commit")
    assert refused.returncode == 5
    assert "no other dataset was in force before" in refused.stderr
    done = await told("rollback", "--to", versions["swapped"], "--commit")
    assert await in_force(pool) == "swapped"
    never = await georouter("rollback", "--to", versions["highway"], "--commit")
    assert (never.returncode, "was never in force" in never.stderr) == (5, True)

    # called off
    dry = await georouter("withdraw", versions["highway"])
    assert dry.stdout == f"{versions['highway']} does not come into force on {planned['from']}\n"
    assert len(await listed(pool)) == 5
    assert await told("withdraw", "highway", "--commit") == {**planned, "committed": True}
    assert (await listed(pool))[0] == ("highway", None, "staged")
    again = await georouter("withdraw", "highway", "--commit")
    assert (again.returncode, "is not planned" in again.stderr) == (5, True)

    assert [action for action, _ in await audited(pool)] == [
        "staged",
        "activated",
        "activated",
        "activated",
        "rolled_back",
        "rolled_back",
        "withdrawn",
    ]
    table = (await georouter("list")).stdout.splitlines()
    assert [line.split()[0] for line in table] == [
        versions[name] for name in ("highway", "both", "swapped", "both", "swapped")
    ]
    assert [line.split()[-1] for line in table] == ["staged", *["retired"] * 3, "active"]


async def test_activate_says_from_when(
    folders: dict[str, Path], versions: dict[str, str], georouter: Any
) -> None:
    empty = await georouter("list")
    assert (empty.returncode, empty.stdout) == (0, "")
    at_once = await georouter("activate", str(folders["both"]), "--commit")
    assert at_once.returncode == 0, at_once.stderr
    assert "in force from" not in at_once.stdout
    day, begins = f"{YEAR}-04-01", f"{YEAR}-03-31T23:00:00Z"
    dry = await georouter("activate", str(folders["highway"]), "--at", day)
    assert dry.stdout.rstrip().endswith(f"in force from {begins}")
    assert "dry run: nothing was changed" in dry.stderr
    for again in (False, True):
        done = await georouter("activate", str(folders["highway"]), "--at", day, "--commit")
        assert done.returncode == 0, done.stderr
        assert ("it would be in force then anyway" in done.stderr) is again
    rows = json.loads((await georouter("list", "--json")).stdout)
    assert rows[0].pop("from").endswith("Z")
    assert rows == [
        {"version": versions["both"], "state": "active", "pruned": False},
        {"version": versions["highway"], "from": begins, "state": "planned", "pruned": False},
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("activate", "both-", "--at", "2026-01-01"), 2, "2026-01-01T00:00:00Z is past; leave it"),
        (("activate", "both-", "--at", f"{YEAR}-13-01"), 2, "is no day and no time"),
        (("activate", "both-", "--at", "2029-03-25T01:30"), 2, "does not exist in the United"),
        (("activate", "both-", "--at", "2029-10-28T01:30"), 2, "comes twice in the United Kingdom"),
        (("activate", "neither"), 4, "neither a dataset folder nor a dataset that was staged"),
        (("activate", "nowhere/at/all"), 4, "is no dataset: it has no manifest.json"),
        (("activate", "bot"), 4, "'bot' may be any of both-"),
        (("rollback",), 5, "no other dataset was in force before"),
        (("withdraw", "both-"), 5, "is not planned to come into force"),
        (("show", "neither"), 4, "neither a dataset folder nor"),
    ],
)
async def test_what_is_refused_changes_nothing(
    arguments: tuple[str, ...],
    code: int,
    message: str,
    folders: dict[str, Path],
    georouter: Any,
    pool: asyncpg.Pool,
    artefacts: Artefacts,
    database_url: str,
) -> None:
    for name in ("both", "swapped"):
        await activation.stage(folders[name], artefacts=artefacts, dsn=database_url, commit=True)
    await pool.execute("INSERT INTO dataset (version, manifest) VALUES ('bottom', '{}')")
    before = await listed(pool)
    commit = [] if arguments[0] == "show" else ["--commit"]
    refused = await georouter(*arguments, *commit)
    assert refused.returncode == code, refused.stderr
    assert message in refused.stderr
    assert refused.stdout == ""
    assert await listed(pool) == before


async def test_show(
    georouter: Any,
    activate: Callable[..., Any],
    tmp_path: Path,
) -> None:
    nothing = await georouter("show")
    assert (nothing.returncode, "no dataset is in force" in nothing.stderr) == (4, True)
    built = tmp_path / "built"
    await asyncio.to_thread(
        build_dataset, sample.layer_files(), built, built_at=BUILT_AT, proof_points=1_000
    )
    manifest = json.loads((built / MANIFEST).read_text())
    source = {"title": "Layer", "publisher": "P", "edition": "May 2026", "licence": "OGL-UK-3.0"}
    manifest["layers"][0]["source"] |= source
    manifest["findings"] = [{"severity": one} for one in ("warning", "note", "warning")]
    (built / MANIFEST).write_text(json.dumps(manifest))
    shown = json.loads((await georouter("show", str(built), "--json")).stdout)
    assert shown["layers"][0]["sources"][0].items() >= source.items()
    assert (shown["findings"], shown["terms"]) == ({"warning": 2, "note": 1}, [])
    assert shown["proof"] == {"points": sum(manifest["proof"]["points"].values()), "mismatches": 0}
    await activate(built)
    of_folder, of_version = {**shown}, json.loads((await georouter("show", "--json")).stdout)
    [term] = of_version.pop("terms")
    assert (term["state"], term["until"]) == ("active", None)
    del of_folder["terms"]
    assert of_version == of_folder
    text = (await georouter("show", manifest["version"])).stdout
    assert "licence OGL-UK-3.0" in text
    assert "findings: 2 warnings, 1 notes" in text
    assert f"active from {term['from']}" in text


# --- prune ----------------------------------------------------------------------------------------


async def age(pool: asyncpg.Pool, days: int) -> None:
    """Let so many days pass."""
    passed = timedelta(days=days)
    await pool.execute("UPDATE activation SET from_at = from_at - $1::interval", passed)
    await pool.execute("UPDATE dataset SET staged_at = staged_at - $1::interval", passed)


async def test_prune_takes_what_is_not_needed_any_more(
    folders: dict[str, Path],
    versions: dict[str, str],
    georouter: Any,
    activate: Callable[..., Any],
    roll_back: Callable[..., Any],
    artefacts: Artefacts,
    pool: asyncpg.Pool,
) -> None:
    everything = set(versions.values())
    prune = ["prune", "--keep", "0", "--older-than", "7"]
    for name in ("both", "swapped", "highway"):
        await activate(folders[name])
    young = await georouter(*prune, "--commit")
    assert (young.stdout, "nothing to remove" in young.stderr) == ("", True)
    await age(pool, 10)
    spared = await georouter("prune", "--keep", "2", "--commit")
    assert spared.stdout == ""
    dry = await georouter(*prune)
    assert dry.stdout.startswith(f"{versions['both']}  10 days idle  ")
    assert kept(artefacts) == everything
    done = json.loads((await georouter(*prune, "--commit", "--json")).stdout)
    # not what is in force, nor what a rollback would lead to
    assert [one["version"] for one in done] == [versions["both"]]
    assert kept(artefacts) == everything - {versions["both"]}
    assert (await audited(pool))[-1] == ("pruned", {"version": versions["both"]})
    assert "retired, pruned" in (await georouter("list")).stdout
    assert "its artefact was pruned" in (await georouter("show", versions["both"])).stdout
    await roll_back()
    assert await in_force(pool) == "swapped"
    refused = await georouter("rollback", "--commit")
    assert refused.returncode == 5
    assert f"the artefact of {versions['both']} was pruned on " in refused.stderr
    assert await in_force(pool) == "swapped"
    # its folder brings it back
    assert (await activate(folders["both"])).changed
    assert kept(artefacts) == everything
    assert "pruned" not in (await georouter("list")).stdout


async def test_prune_spares_what_is_planned_and_what_was_staged_lately(
    folders: dict[str, Path],
    activate: Callable[..., Any],
    artefacts: Artefacts,
    database_url: str,
    pool: asyncpg.Pool,
) -> None:
    async def pruned() -> list[str]:
        done = await activation.prune(
            keep=0,
            older_than=timedelta(days=7),
            artefacts=artefacts,
            dsn=database_url,
            commit=True,
        )
        return [one.version.split("-")[0] for one in done]

    await activate(folders["both"])
    await activation.stage(folders["highway"], artefacts=artefacts, dsn=database_url, commit=True)
    await age(pool, 10)
    await activate(folders["swapped"], from_at=london.parse_instant(f"{YEAR}-04-01"))
    await activation.stage(folders["highway"], artefacts=artefacts, dsn=database_url, commit=True)
    await pool.execute("UPDATE dataset SET staged_at = now() WHERE version LIKE 'highway%'")
    assert await pruned() == []
    await age(pool, 10)
    assert await pruned() == ["highway"]
    assert await pruned() == []


# --- several at once ------------------------------------------------------------------------------


async def waiting(pool: asyncpg.Pool, count: int) -> None:
    """Until so many sessions wait for the lock on datasets."""
    async with asyncio.timeout(20):
        while True:
            found = await pool.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            if found >= count:
                return
            await asyncio.sleep(0.02)


async def at_once(pool: asyncpg.Pool, *work: Any) -> list[Any]:
    """Let all of these look at what is in force, and then do what they do one after the other."""
    async with db.acquire(pool) as conn, asyncio.TaskGroup() as tasks:
        async with conn.transaction():
            await datasets.lock_datasets(conn)
            running = asyncio.gather(*work, return_exceptions=True)
            looking = tasks.create_task(waiting(pool, len(work)))
            await looking
        return await running


async def test_two_rollbacks_at_once_are_one(
    folders: dict[str, Path],
    activate: Callable[..., Any],
    roll_back: Callable[..., Any],
    pool: asyncpg.Pool,
) -> None:
    for name in ("both", "swapped", "highway"):
        await activate(folders[name])
    done = await at_once(pool, roll_back(), roll_back())
    assert [one.version.split("-")[0] for one in done] == ["swapped", "swapped"]
    assert sorted(one.changed for one in done) == [False, True]
    assert await in_force(pool) == "swapped"
    assert [action for action, _ in await audited(pool)].count("rolled_back") == 1


async def test_of_two_activations_at_once_one_is_told_of_the_other(
    folders: dict[str, Path], activate: Callable[..., Any], pool: asyncpg.Pool
) -> None:
    await activate(folders["both"])
    done = await at_once(pool, activate(folders["swapped"]), activate(folders["highway"]))
    [first] = [one for one in done if not isinstance(one, Exception)]
    [refused] = [one for one in done if isinstance(one, Exception)]
    assert isinstance(refused, activation.ActivationRefused)
    assert f"{first.version} has come into force meanwhile" in str(refused)
    assert await in_force(pool) == first.version.split("-")[0]


async def test_the_same_activation_twice_at_once_is_harmless(
    folders: dict[str, Path], activate: Callable[..., Any], pool: asyncpg.Pool
) -> None:
    await activate(folders["both"])
    done = await at_once(pool, activate(folders["swapped"]), activate(folders["swapped"]))
    assert sorted(one.changed for one in done) == [False, True]
    assert [state for _, _, state in await listed(pool)] == ["retired", "active"]


@pytest.mark.parametrize(
    ("by", "message"),
    [("version", "was pruned on .* activate its folder"), ("folder", "was removed meanwhile; run")],
)
async def test_a_dataset_pruned_while_it_is_activated_is_not_put_in_force(
    by: str,
    message: str,
    folders: dict[str, Path],
    versions: dict[str, str],
    activate: Callable[..., Any],
    artefacts: Artefacts,
    database_url: str,
    pool: asyncpg.Pool,
) -> None:
    for name in ("both", "swapped", "highway"):
        await activate(folders[name])
    await age(pool, 10)
    async with db.acquire(pool) as conn, conn.transaction():
        await datasets.lock_datasets(conn)
        prune = asyncio.ensure_future(
            activation.prune(
                keep=0,
                older_than=timedelta(days=7),
                artefacts=artefacts,
                dsn=database_url,
                commit=True,
            )
        )
        await waiting(pool, 1)
        again = asyncio.ensure_future(
            activate(versions["both"] if by == "version" else folders["both"])
        )
        await waiting(pool, 2)
    assert [one.version for one in await prune] == [versions["both"]]
    with pytest.raises(activation.ActivationRefused, match=message):
        await again
    assert await in_force(pool) == "highway"


# --- killed ---------------------------------------------------------------------------------------

KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from api import activation, artefacts
from api.routing import load_rules
from api.store import audit

def die(*_arguments, **_options):
    os.kill(os.getpid(), signal.SIGKILL)

def die_half_way(source, target):
    target.write_bytes(source.read_bytes()[:1000])
    die()

_, where, folder, home, dsn = sys.argv
if where == "in the copy":
    artefacts._copy = die_half_way
elif where == "after the copy":
    artefacts.Artefacts.put, put = None, artefacts.Artefacts.put
    async def put_and_die(*arguments):
        await put(*arguments)
        die()
    artefacts.Artefacts.put = put_and_die
else:
    audit.record = die
asyncio.run(activation.activate(
    Path(folder), rules=load_rules(None), artefacts=artefacts.Artefacts(Path(home)), dsn=dsn,
    commit=True,
))
"""


@pytest.mark.parametrize("where", ["in the copy", "after the copy", "before the commit"])
async def test_killed_it_leaves_nothing_that_the_next_run_minds(
    where: str,
    folders: dict[str, Path],
    versions: dict[str, str],
    activate: Callable[..., Any],
    artefacts: Artefacts,
    database_url: str,
    pool: asyncpg.Pool,
) -> None:
    await activate(folders["both"])
    before = await pool.fetch("SELECT * FROM dataset"), await pool.fetch("SELECT * FROM audit")
    killed = await asyncio.to_thread(
        subprocess.run,
        [
            sys.executable,
            *("-c", KILLED, where, folders["swapped"], artefacts.folder, database_url),
        ],
        cwd=ROOT,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert (
        await pool.fetch("SELECT * FROM dataset"),
        await pool.fetch("SELECT * FROM audit"),
    ) == before
    assert await in_force(pool) == "both"
    # half a copy is not under its name
    home = artefacts.folder / versions["swapped"]
    assert home.exists() is (where != "in the copy")
    done = await activate(folders["swapped"])
    assert (done.before, done.changed) == (versions["both"], True)
    assert kept(artefacts) == {versions["both"], versions["swapped"]}
    assert (home / INDEX).read_bytes() == (folders["swapped"] / INDEX).read_bytes()
    assert [action for action, _ in await audited(pool)] == ["activated"] * 2
