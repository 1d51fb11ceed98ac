"""`boundaries sources` and `boundaries fetch` as processes: killed, interrupted, two at once."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from api.activation import activate
from api.artefacts import Artefacts
from api.routing import load_rules
from boundaries import sample
from boundaries.build import build_dataset
from boundaries.cache import Cache
from boundaries.catalogue import read_catalogue
from boundaries.drivers.remote import Patience, Remote, RemoteError
from tests.support.fake_sources import Answer, FakeSources, File, Layer, at, at_offset, esri_areas

ROOT = Path(__file__).parents[2]
MAY, DECEMBER = "CTYUA_MAY_2025_UK_BFC", "CTYUA_DEC_2025_UK_BFC"
ABOUT = 'title = "T"\npublisher = "P"\nlicence = "L"\nattribution = "A"\n'

Start = Callable[..., subprocess.Popen[str]]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fake() -> Iterator[FakeSources]:
    with FakeSources() as fake:
        fake.layers = {MAY: Layer(esri_areas(5))}
        yield fake


@pytest.fixture
def start(fake: FakeSources, certificate: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a command on a data directory and a catalogue of its own."""
    catalogue = tmp_path / "own.toml"
    catalogue.write_text(
        f'[sources.mine]\n{ABOUT}driver = "arcgis"\npage_size = 2\n'
        f'root = "{fake.url("/arcgis/rest/services")}"\n'
        "service = ['CTYUA_{month}_{year}_UK_BFC']\n"
        f'[sources.other]\n{ABOUT}driver = "url"\nurl = "{fake.url("/a.gpkg")}"\nedition = "1"\n'
    )
    environment = {
        **os.environ,  # noqa: TID251 - the user's own, so that PATH and HOME are real
        "GEOROUTER_CATALOGUE": str(catalogue),
        "GEOROUTER_DATA_DIR": str(tmp_path / "data"),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
        # what is in the environment for others is not for us
        "HTTP_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
        "ALL_PROXY": "http://127.0.0.1:1",
        "SSL_CERT_FILE": str(certificate),
    }
    environment.pop("GEOROUTER_DATABASE_URL", None)
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **settings: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.cli", "boundaries", *arguments],
            cwd=tmp_path,
            env={**environment, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run(start: Start) -> Run:
    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        process = start(*arguments, **settings)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    return run


def kept(tmp_path: Path) -> list[Path]:
    """Whatever is in the cache beside the work that is going on."""
    folder = tmp_path / "data" / "cache"
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in {"work", "seen"}
    ]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_is_gone_on_with(
    fake: FakeSources, start: Start, run: Run, tmp_path: Path, how: signal.Signals
) -> None:
    fake.instead(at_offset(4), Answer(hang=True))
    process = start("fetch", "mine")
    fake.wait_until_hanging()
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted; the same command goes on from here" in err
    assert kept(tmp_path) == []
    assert fake.offsets() == [0, 2, 4]
    fake.requests.clear()
    done = run("fetch", "mine")
    assert done.returncode == 0, done.stderr
    assert fake.offsets() == [4]
    (index, file) = sorted(kept(tmp_path), key=lambda path: path.suffix)
    assert done.stdout == f"mine  2025-05  {file}\n"
    assert index.name == "mine.json"


def test_of_two_at_once_one_is_refused(
    fake: FakeSources, start: Start, run: Run, tmp_path: Path
) -> None:
    fake.instead(at_offset(4), Answer(hang=True))
    first = start("fetch", "mine")
    fake.wait_until_hanging()
    second = run("fetch", "mine")
    assert second.returncode == 5
    assert "mine is being fetched by another process; let it finish" in second.stderr
    fake.files["/a.gpkg"] = File.tagged(b"a")
    assert run("fetch", "other").returncode == 0
    # the answer that hung was empty: the page is asked for once more
    fake.release()
    assert first.wait(timeout=60) == 0
    assert len(kept(tmp_path)) == 4
    cached = Cache(tmp_path / "data" / "cache").newest("mine")
    assert cached is not None


def test_what_is_printed(fake: FakeSources, run: Run, tmp_path: Path) -> None:
    fake.files["/a.gpkg"] = File.tagged(b"a" * 2_345_678)
    first = run("fetch", "mine", "other", "--json")
    assert first.returncode == 0, first.stderr
    mine, other = json.loads(first.stdout)
    assert (mine["source"], mine["edition"], mine["fresh"]) == ("mine", "2025-05", True)
    assert set(mine) == {"source", "edition", "path", "sha256", "origin", "fresh"}
    assert Path(other["path"]).read_bytes() == fake.files["/a.gpkg"].content
    assert "other 1: 2.3 MB, fetched" in first.stderr
    again = run("fetch", "mine", "other", "--json")
    assert [one["fresh"] for one in json.loads(again.stdout)] == [False, False]
    assert "mine 2025-05: 0.0 MB, in the cache already" in again.stderr
    checked = run("validate", "mine", "--json")
    assert json.loads(checked.stdout)["layers"][0]["name"] == "mine"
    missing = run("validate", "ons-lad")
    assert (missing.returncode, missing.stdout) == (4, "")
    assert "run `georouter boundaries fetch ons-lad`" in " ".join(missing.stderr.split())
    fake.layers[DECEMBER] = Layer(esri_areas(6))
    assert run("fetch", "mine", "--edition", "2025-05", "--refresh").returncode == 0
    assert fake.requests[-1].path.endswith(f"{MAY}/FeatureServer/0/query")

    dataset = tmp_path / "dataset"
    dataset.mkdir()
    layers = [{"name": "highway", "source": {"source": "mine", "edition": "2024-12"}}]
    (dataset / "manifest.json").write_text(json.dumps({"version": "v", "layers": layers}))
    fake.requests.clear()
    listed = run("sources", "--dataset", str(dataset), "--json")
    rows = {row["source"]: row for row in json.loads(listed.stdout)}
    assert rows["mine"].pop("asked_at").endswith("Z")
    assert rows["mine"] == {
        "source": "mine",
        "title": "T",
        "publisher": "P",
        "licence": "L",
        "in_use": "2024-12",
        "in_cache": "2025-05",
        "newest": "2025-12",
        "verified": False,
    }
    assert set(read_catalogue()) < set(rows)
    told = run("sources")
    assert told.returncode == 0
    assert (
        "mine: T\n  publisher     P\n  licence       L\n  in use        -\n"
        "  in the cache  2025-05\n  newest known  2025-12 (20" in told.stdout
    )
    assert told.stdout.count("verified against the live service: no") == len(rows)
    assert not fake.requests
    assert not (tmp_path / "data" / "postgres").exists()


async def test_what_is_in_use_is_asked_of_a_database_that_is_there(
    run: Run, tmp_path: Path, database_url: str
) -> None:
    folder = tmp_path / "built"
    build_dataset(
        sample.layer_files(), folder, built_at=datetime(2026, 11, 23, tzinfo=UTC), proof_points=1000
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["layers"][0]["source"] |= {"source": "mine", "edition": "2024-12"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    await activate(
        folder,
        rules=load_rules(None),
        artefacts=Artefacts(tmp_path / "datasets"),
        dsn=database_url,
        commit=True,
    )

    async def sources(dsn: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(run, "sources", "--json", GEOROUTER_DATABASE_URL=dsn)

    done = await sources(database_url)
    assert {row["in_use"] for row in json.loads(done.stdout)} == {None, "2024-12"}
    away = await sources("postgresql://127.0.0.1:1/none")
    assert away.returncode == 0
    assert {row["in_use"] for row in json.loads(away.stdout)} == {None}
    assert "what is in use is not known: " in away.stderr


def test_faults_have_exit_codes(fake: FakeSources, run: Run, tmp_path: Path) -> None:
    for arguments, code, said in (
        (("fetch", "other", "nothing"), 4, "there is no source 'nothing'; take one of ons-ctyua"),
        (
            ("fetch", "mine", "--edition", "2020-01"),
            4,
            "mine has no edition '2020-01'; it has 2025",
        ),
        (("fetch", "other"), 6, "/a.gpkg answers 404 Not Found; see whether the cata"),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not [request for request in fake.requests[:-1] if request.path == "/a.gpkg"]
    (tmp_path / "own.toml").write_text("[sources.mine]\ntitel = 'T'")
    done = run("sources")
    assert done.returncode == 1
    assert "own.toml, line 1: source 'mine' has no driver; add it" in done.stderr


def test_check_asks_every_service_and_says_which_failed(
    fake: FakeSources, run: Run, tmp_path: Path
) -> None:
    # no service but ours is to be asked
    names = [*read_catalogue(), "gone", "mine"]
    root = fake.url("/arcgis/rest/services")
    fits = f"driver = 'arcgis'\nroot = '{root}'\nservice = ['CTYUA_{{month}}_{{year}}_UK_BFC']"
    entries = dict.fromkeys(names, fits)
    entries["gone"] = "driver = 'file'\nfile = 'gone.gpkg'"
    entries["ons-lad"] = f"driver = 'wfs'\nurl = '{root}/none'\nfeature_type = 'a'\nsort_by = 'b'"
    (tmp_path / "own.toml").write_text(
        "\n".join(f"[sources.{name}]\n{ABOUT}{entry}" for name, entry in entries.items())
    )
    done = run("sources", "--check", "--json")
    assert done.returncode == 6
    assert "ons-lad: " in done.stderr
    assert "gone.gpkg does not exist" in done.stderr
    newest = {row["source"]: row["newest"] for row in json.loads(done.stdout)}
    assert newest == {
        **dict.fromkeys(names, "2025-05"),
        "gone": None,
        "ons-lad": None,
    }


# --- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate that nobody but itself vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    day = timedelta(days=1)
    now = datetime.now(UTC)  # noqa: TID251 - a certificate is of today
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "self.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_a_certificate_that_nobody_vouches_for_is_refused(
    certificate: Path, run: Run, tmp_path: Path
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    with FakeSources(tls=server) as fake:
        fake.files["/a.gpkg"] = File.tagged(b"a")
        url = fake.url("/a.gpkg")
        (tmp_path / "own.toml").write_text(
            f'[sources.tls]\n{ABOUT}driver = "url"\nurl = "{url}"\nedition = "1"\n'
        )
        done = run("fetch", "tls")
        assert done.returncode == 6
        assert "the certificate is not to be trusted (self" in done.stderr
        assert "nothing was fetched" in done.stderr
        assert fake.requests == []
        part = tmp_path / "part"
        trusting = ssl.create_default_context(cafile=certificate)
        with Remote(Patience(tries=1), tls=trusting) as ours:
            ours.download(url, part, most_bytes=10)
        assert part.read_bytes() == b"a"
        with Remote(Patience(tries=1)) as theirs, pytest.raises(RemoteError, match="not to be tru"):
            theirs.download(url, part, most_bytes=10)
        assert [at("/a.gpkg")(request) for request in fake.requests] == [True]
        # neither to a stranger nor to what only this machine can reach
        for away in ("http://boundaries.example/a.gpkg", "http://127.0.0.1:1/a.gpkg"):
            fake.instead(at("/a.gpkg"), Answer(302, headers={"Location": away}))
            with (
                Remote(Patience(tries=1), tls=trusting) as ours,
                pytest.raises(RemoteError, match=f"{away} is not over TLS"),
            ):
                ours.download(url, tmp_path / "other", most_bytes=10)
