"""Runs of real scripts: what is left open, what comes back from a checkpoint."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A package of this size takes a while to import on a busy machine.
pytestmark = pytest.mark.timeout(600)


def start(folder, code, *arguments):
    """Start a script of a user."""
    script = folder / "train.py"
    script.write_text(code, encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DRYTRACK")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])
    return subprocess.Popen(
        [sys.executable, script, *map(str, arguments)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait(*processes):
    """Return what each process has printed."""
    try:
        printed = [process.communicate(timeout=250) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0] * len(processes), (
        printed
    )
    return [output for output, _ in printed]


REFUSED = """
import sys

import drytrack
from drytrack.core.exceptions import RequiredTrackerError

backend, options = sys.argv[1], eval(sys.argv[2])
try:
    drytrack.create_tracker("digits", backend=backend, **options)
except RequiredTrackerError as error:
    print(error)
"""


class Unauthorized(http.server.BaseHTTPRequestHandler):
    """A server that believes nobody."""

    def _refuse(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b'{"error_code": "PERMISSION_DENIED", "message": "who are you?"}'
        self.send_response(401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = _refuse  # noqa: N815  # names of http.server

    def log_message(self, *args):
        pass


@pytest.fixture
def refusing():
    """Yield the address of a server that answers 401 to everything."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Unauthorized) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def dead():
    """Yield an address where nobody answers."""
    with socket.socket() as taken:  # bound, but it does not listen
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.backend
@pytest.mark.needs("mlflow")
@pytest.mark.parametrize("fault", ["credentials", "server"])
def test_mlflow_that_cannot_start_says_why_and_what_to_do(
    tmp_path, monkeypatch, refusing, dead, fault
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    options = {"tracking_uri": refusing if fault == "credentials" else dead}

    (printed,) = wait(start(tmp_path, REFUSED, "mlflow", options))

    assert "Backend 'mlflow' cannot start: " in printed
    cures = {"credentials": "Check the credentials", "server": "Check its address"}
    assert cures[fault] in printed
    assert "on_backend_error='warn'" in printed


@pytest.mark.backend
@pytest.mark.needs("wandb")
@pytest.mark.parametrize(
    ("fault", "key", "cure"),
    [
        ("credentials", "x" * 40, "Check the credentials"),
        ("key", "short", "Check the credentials"),
        ("server", "x" * 40, "Check its address"),
    ],
)
def test_wandb_that_cannot_start_says_why_and_what_to_do(
    tmp_path, monkeypatch, refusing, dead, fault, key, cure
):
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_BASE_URL", dead if fault == "server" else refusing)
    monkeypatch.setenv("WANDB_API_KEY", key)
    options = {"settings": {"init_timeout": 10}}

    (printed,) = wait(start(tmp_path, REFUSED, "wandb", options))

    assert "Backend 'wandb' cannot start: " in printed
    assert cure in printed


ELSEWHERE = """
import sys

import drytrack

with drytrack.setup_tracker("digits", "first", backends=sys.argv[1]) as run:
    backend = run.get_backend(sys.argv[1])
    if sys.argv[1] == "wandb":
        print(backend.native.project, backend.native.name)
    else:
        there = backend.native.get_run(backend.run_id)
        print(backend.native.get_experiment(there.info.experiment_id).name)
"""


@pytest.mark.backend
@pytest.mark.parametrize(
    ("backend", "variables", "names"),
    [
        pytest.param(*case, marks=pytest.mark.needs(case[0]))
        for case in (
            ("wandb", {}, "digits first"),
            ("wandb", {"WANDB_PROJECT": "theirs", "WANDB_NAME": "a"}, "theirs a"),
            ("mlflow", {}, "digits"),
            ("mlflow", {"MLFLOW_EXPERIMENT_NAME": "theirs"}, "theirs"),
        )
    ],
)
def test_variables_of_a_tool_keep_their_meaning(
    tmp_path, monkeypatch, backend, variables, names
):
    for name in list(os.environ):
        if name.startswith(("WANDB_", "MLFLOW_")):
            monkeypatch.delenv(name)
    for name, value in {"WANDB_MODE": "offline", **variables}.items():
        monkeypatch.setenv(name, value)

    (printed,) = wait(start(tmp_path, ELSEWHERE, backend))

    assert printed.splitlines()[-1] == names


UNFINISHED = """
import atexit
import drytrack
from drytrack.trackers.base import Backend


class Client(Backend):
    def open(self, info):
        self.is_up = True
        atexit.register(self.shut_down)

    def shut_down(self):
        self.is_up = False

    def log_metrics(self, metrics, at):
        assert self.is_up
        print("took", dict(metrics))

    def finish(self, status, error):
        assert self.is_up
        print(status)


drytrack.register_backend("client", Client)
run = drytrack.setup_tracker("digits", backends="client")
run.log({"loss": 0.5})
"""


@pytest.mark.slow
def test_a_run_that_is_left_open_ends_before_the_clients_of_its_backends(tmp_path):
    (printed,) = wait(start(tmp_path, UNFINISHED))

    assert printed.splitlines() == ["took {'loss': 0.5}", "completed"]


CHECKPOINT = """
import os
import sys
import uuid

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

import drytrack
from drytrack.trackers.base import Backend

server, par_dir, checkpoint, meeting, rank, size, first = sys.argv[1:]


class Hosted(Backend):
    notify = Backend.notify.extend()

    def open(self, info):
        self.id = self.state.setdefault("id", uuid.uuid4().hex)

    def log_metrics(self, metrics, at):
        with open(os.path.join(server, self.id), "a") as file:
            print(at.step, metrics["loss"], file=file)

    def finish(self, status, error):
        pass


dist.init_process_group(
    "gloo", init_method="file://" + meeting, rank=int(rank), world_size=int(size)
)
experiment = drytrack.Experiment({"lr": 0.1}, name="Digits", par_dir=par_dir)
experiment.trackers.remove_all()
experiment.trackers.subscribe(Hosted())
state = {"model": torch.nn.Linear(2, 2).state_dict(), "tracking": experiment}
if first != "first":
    dcp.load(state, checkpoint_id=checkpoint)
with experiment.create_run() as run:
    run.log({"loss": 1.0}, step=10 if first == "first" else None)
    run.summary["best"] = 1.0
    if first == "first":
        dcp.save(state, checkpoint_id=checkpoint)
    print(run.id, run.attempt, run.is_main)
dist.destroy_process_group()
"""


@pytest.mark.torch
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_distributed_checkpoint_leads_new_processes_to_the_run(tmp_path, elsewhere):
    size = 2
    server = tmp_path / "server"
    server.mkdir()

    def job(par_dir, which):
        return wait(
            *(
                start(
                    tmp_path,
                    CHECKPOINT,
                    server,
                    par_dir,
                    tmp_path / "checkpoint",
                    tmp_path / f"meeting-{which}",
                    rank,
                    size,
                    which,
                )
                for rank in range(size)
            )
        )

    before = job(tmp_path / "here", "first")
    par_dir = tmp_path / ("there" if elsewhere else "here")
    after = job(par_dir, "second")

    run_id = before[0].split()[0]
    assert [line.split() for line in after] == [
        [run_id, "2", "True"],
        [run_id, "2", "False"],
    ]
    (hosted,) = server.iterdir()
    assert hosted.read_text().splitlines() == ["10 1.0", "11 1.0"]
    record = par_dir / ".drytrack" / "Digits" / run_id / "record.json"
    found = json.loads(record.read_text())
    assert (found["status"], len(found["attempts"])) == ("completed", 2)
    assert found["summary"] == {"best": 1.0}
