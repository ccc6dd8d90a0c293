"""Runs made by the library itself, and the command line in this process."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from drytrack import Experiment
from drytrack.cli._app import app
from drytrack.core import log_events


@pytest.fixture(autouse=True)
def _no_trackers(no_default_trackers):
    """What runs leave here is their records alone."""


@pytest.fixture
def make_run(tmp_path):
    """Return what makes a run of three epochs that has ended."""

    def make(run_id, *, name="Digits", resume=False, epochs=(1, 2, 3), **config):
        experiment = Experiment(
            {"lr": 0.1, "opt": {"name": "adam"}} | config,
            name=name,
            par_dir=tmp_path,
            tags=["mlp"],
        )
        with experiment.create_run(run_id, resume=resume) as run:
            for epoch in epochs:
                loss = experiment.config["lr"] / epoch
                log_events.MetricEvent("net", "trainer", epoch, {"loss": loss})
                log_events.SaveModelEvent("net", "checkpoint", f"{epoch}.pt", epoch)
        return run

    return make


@pytest.fixture
def cli(tmp_path):
    """Return what calls a verb on the runs below ``tmp_path``."""

    def call(*args, code=0, stdin=None, folder=tmp_path, width=120):
        result = CliRunner().invoke(
            app,
            [*map(str, args)],
            input=stdin,
            env={"DRYTRACK_DIR": str(folder), "COLUMNS": str(width)},
            catch_exceptions=False,
        )
        assert result.exit_code == code, result.output
        return result

    return call


@pytest.fixture
def told(cli):
    """Return what calls a verb with ``--json`` and reads its answer."""

    def call(*args, **options):
        return json.loads(cli(*args, "--json", **options).stdout)

    return call
