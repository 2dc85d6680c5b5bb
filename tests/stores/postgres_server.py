"""A PostgreSQL server for tests: it listens on a Unix socket in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

PASSWORD = "sk-secret-and-wrong"


def find_programs() -> Path | None:
    """Return the folder of the server's programs; Debian keeps them out of the PATH."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    complete = (each for each in folders if (each / "postgres").exists())
    return next(complete, None)


class PostgresServer:
    """A server with the role ``postgres``, which needs no password, and ``guest``, which does."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._data = folder / "data"
        # The server refuses to run as root.
        self._user = None
        if os.geteuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            self._user = next(name for name in ("postgres", "nobody") if name in names)
            shutil.chown(folder, self._user)

    def dsn(self, user: str = "postgres", database: str = "postgres", **options: str) -> str:
        given = {"host": str(self._folder), "user": user, "dbname": database, **options}
        return " ".join(f"{name}='{value}'" for name, value in given.items())

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(  # noqa: S603 - programs of the server
            [self._programs / program, "-D", self._data, *arguments],
            user=self._user,
            extra_groups=[] if self._user else None,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            # A server that was started keeps its output open: not a pipe, which would never end.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, f"{program} {arguments} failed: {self.log()}"

    def log(self) -> str:
        path = self._folder / "log"
        return path.read_text("utf-8", "replace")[-2000:] if path.exists() else ""

    def create(self) -> None:
        self._run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        access = "local all guest scram-sha-256\nlocal all all trust\n"
        (self._data / "pg_hba.conf").write_text(access, "utf-8")
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write(
                "listen_addresses = ''\n"
                f"unix_socket_directories = '{self._folder}'\n"
                "fsync = off\nmax_connections = 60\nlogging_collector = off\n"
            )

    def start(self) -> None:
        self._run("pg_ctl", "-w", "-t", "120", "-l", str(self._folder / "log"), "start")

    def stop(self) -> None:
        """End the server in the way of a crash: connections are cut, nothing is tidied up."""
        self._run("pg_ctl", "-w", "-t", "120", "-m", "immediate", "stop")

    def pids(self) -> list[int]:
        """Return the ids of the server and of its children, one for each connection."""
        main = int((self._data / "postmaster.pid").read_text("utf-8").split()[0])
        children: list[int] = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
                if int(fields[1]) == main:
                    children.append(int(stat.parent.name))
        return [main, *children]

    @contextlib.contextmanager
    def paused(self) -> Generator[None]:
        """Pause all processes of the server for the length of the block."""
        pids = self.pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def run_postgres() -> Generator[PostgresServer]:
    """Run a server for the length of the block; skips the test where there is none."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: initdb was not found")
    psycopg = pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    # The path of a Unix socket has at most 107 bytes, so not in the folder of the test.
    folder = Path(tempfile.mkdtemp(prefix="tr-pg-"))
    server = PostgresServer(programs, folder)
    try:
        server.create()
        server.start()
        try:
            with psycopg.connect(server.dsn()) as connection:
                connection.execute("CREATE ROLE guest LOGIN PASSWORD 'another one'")
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
