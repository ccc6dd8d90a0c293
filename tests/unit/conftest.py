"""What unit tests share: a run that is recorded, a package with a tracker."""

from __future__ import annotations

import importlib
import sys

import pytest

from drytrack.core.experiment import Experiment
from drytrack.testing import Recorder


@pytest.fixture
def recorder():
    """Return a tracker that keeps every event."""
    return Recorder()


@pytest.fixture
def experiment(no_default_trackers, tmp_path, recorder):
    """Return an experiment that the recorder alone watches."""
    experiment = Experiment({"lr": 0.1}, name="Digits", par_dir=tmp_path / "store")
    experiment.trackers.subscribe(recorder)
    return experiment


@pytest.fixture
def run(experiment):
    """Return a run that goes on."""
    with experiment.create_run("a") as run:
        yield run


@pytest.fixture
def install_tracker(tmp_path, monkeypatch):
    """Return what installs version 1.2 of a package with a tracker ``Theirs``."""

    def install(name, module, code=None):
        info = tmp_path / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: theirs\nVersion: 1.2\n"
        )
        (info / "entry_points.txt").write_text(
            f"[drytrack.trackers]\n{name} = {module}:Theirs\n"
        )
        if code is not None:
            (tmp_path / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, module, raising=False)
        importlib.invalidate_caches()

    return install
