"""Real Hydra applications, and what is found of them in the runs' folders."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from drytrack.core._record import read_records
from drytrack.replay import replay
from drytrack.testing import TrackerContract
from drytrack.trackers.hydra import HydraLink

pytestmark = [
    pytest.mark.backend,
    pytest.mark.timeout(600),  # it starts processes, on a machine that may be busy
    pytest.mark.needs("hydra"),
]

APP = """
import pathlib, sys
import hydra
from drytrack import Experiment
from drytrack.core import log_events
from drytrack.trackers.hydra import HydraLink

PAR_DIR = pathlib.Path(__file__).parent / "experiments"

@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(config):
    par_dir = None if config.inside else PAR_DIR
    experiment = Experiment(config, name="Vision", par_dir=par_dir)
    experiment.trackers.subscribe(HydraLink(copy=config.copied))
    resume = "auto" if config.run_id else False
    with experiment.create_run(config.run_id, resume=resume) as run:
        run.flush(5)
        pathlib.Path(hydra.core.hydra_config.HydraConfig.get().runtime.output_dir,
                     "weights.bin").write_bytes(b"\\x00\\xff")
        log_events.MetricEvent("mlp", "train", 1, {"loss": config.lr})
        if config.lr > 5:
            raise ValueError("it diverged")

main()
"""

CONFIG = """
lr: 0.1
run_id: null
copied: false
inside: false
db: {password: hunter22}
hydra: {job: {name: app}}
"""


@pytest.fixture
def app(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text(CONFIG)

    def start(*arguments, code=0):
        environment = {**os.environ, "DRYTRACK_INIT_MODE": "none"}
        command = [sys.executable, "app.py", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        assert "TrackerExceptionWarning" not in done.stderr

    return start


def links_in(tmp_path, name="output"):
    return sorted((tmp_path / "experiments" / "hydra").rglob(name))


class TestHydraLink(TrackerContract):
    """Outside of Hydra, it leaves a run alone."""

    def make_tracker(self, tmp_path):
        return HydraLink(tmp_path)


def test_a_single_run_links_its_output_folder(tmp_path, app):
    app("hydra.run.dir=outputs/one", "run_id=first")

    (link,) = links_in(tmp_path)
    assert link == tmp_path / "experiments/hydra/Vision/first/output"
    assert link.resolve() == tmp_path / "outputs" / "one"
    assert (link / ".hydra" / "overrides.yaml").exists()
    assert not links_in(tmp_path, "copy")


def test_a_resumed_run_links_the_folder_of_each_job(tmp_path, app):
    app("hydra.run.dir=outputs/one", "run_id=first")
    app("hydra.run.dir=outputs/two", "run_id=first")

    folder = tmp_path / "experiments/hydra/Vision/first"
    assert (folder / "output").resolve().name == "one"
    assert (folder / "output_2").resolve().name == "two"


def test_a_copy_holds_the_files_without_the_secrets(tmp_path, app):
    app("hydra.run.dir=outputs/one", "run_id=first", "copied=true", "+token=tok-123456")

    copy = tmp_path / "experiments/hydra/Vision/first/copy"
    assert (copy / "weights.bin").read_bytes() == b"\x00\xff"
    assert "lr: 0.1" in (copy / ".hydra/config.yaml").read_text()
    everything = [p.read_bytes() for p in copy.rglob("*") if p.is_file()]
    assert not any(b"hunter22" in data or b"tok-123456" in data for data in everything)
    records = (tmp_path / "experiments/.drytrack").rglob("*.json*")
    assert not any(b"hunter22" in path.read_bytes() for path in records)


def test_a_copy_of_a_folder_that_holds_the_runs_ends(tmp_path, app):
    app(
        *("hydra.run.dir=outputs/one", "run_id=first", "copied=true"),
        *("hydra.job.chdir=true", "inside=true"),
    )

    copy = tmp_path / "outputs/one/hydra/Vision/first/copy"
    assert (copy / "weights.bin").exists()
    assert not (copy / "hydra").exists()
    assert not (copy / ".drytrack").exists()


def test_each_job_of_a_multirun_is_a_run_below_the_sweep(tmp_path, app):
    app("-m", "lr=0.1,0.2,0.3", "hydra.sweep.dir=multirun/sweep")

    sweep, *jobs = read_records(tmp_path / "experiments", "Vision")
    assert sweep.id.startswith("sweep_multirun_sweep_")
    assert sweep.status == "completed"
    assert sweep.data["sweep"] == {"dir": str(tmp_path / "multirun" / "sweep")}
    assert [job.data["parent"] for job in jobs] == 3 * [
        {"id": sweep.id, "uuid": sweep.uuid}
    ]
    assert [job.data["overrides"] for job in jobs] == [
        ["lr=0.1"],
        ["lr=0.2"],
        ["lr=0.3"],
    ]
    targets = [link.resolve().relative_to(tmp_path) for link in links_in(tmp_path)]
    assert sorted(targets) == [pathlib.Path("multirun/sweep", n) for n in "012"]


def test_a_sweep_has_failed_once_a_job_has(tmp_path, app):
    app("-m", "lr=0.1,9", "hydra.sweep.dir=multirun/sweep", code=1)

    sweep, good, bad = read_records(tmp_path / "experiments", "Vision")
    assert (sweep.status, good.status, bad.status) == ("failed", "completed", "failed")


def test_a_replay_leaves_the_link_alone(tmp_path, app):
    app("hydra.run.dir=outputs/one", "run_id=first")

    replay(tmp_path / "experiments/.drytrack/Vision/first", HydraLink())

    (link,) = links_in(tmp_path)
    assert link.resolve() == tmp_path / "outputs" / "one"


def test_a_folder_that_cannot_be_written_costs_the_job_nothing(tmp_path, app):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "hydra").write_text("a file where a folder should be")

    with pytest.raises(AssertionError, match="TrackerExceptionWarning"):
        app("run_id=first")

    (record,) = read_records(tmp_path / "experiments", "Vision")
    assert record.status == "completed"
