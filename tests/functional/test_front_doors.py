"""Runs of real scripts: what is left open, what comes back from a checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


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
        printed = [process.communicate(timeout=100) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0] * len(processes), (
        printed
    )
    return [output for output, _ in printed]


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
    pytest.importorskip("torch")
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
