"""What every test needs: nothing of the machine's, and a folder to leave things in."""

from __future__ import annotations

import importlib.util
import os
import signal
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from pathlib import Path

# How long an example takes says how busy the machine is, and nothing about the code.
# The same examples every time, so that a failure belongs to the change that it meets;
# `pytest --hypothesis-profile=explore` looks for new ones.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("same")

# A shell starts what it puts in the background with Ctrl-C ignored, and children
# inherit that; those of some tests are to be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Launchers of distributed jobs set these, and a rank above 0 does not track.
RANK_VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_RANK",
    "PMI_SIZE",
)


@pytest.fixture(autouse=True)
def _clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset what steers drytrack, and keep stray output out of the source tree."""
    for name in list(os.environ):
        if name.startswith("DRYTRACK_") or name in RANK_VARIABLES:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_default_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave experiments with the trackers alone that a test gives them."""
    from drytrack.core import _defaults

    monkeypatch.setattr(_defaults, "trackers", {})
    monkeypatch.setattr(_defaults, "chosen", True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a package that its environment does not have, and say which."""
    modules = [name for mark in item.iter_markers("needs") for name in mark.args]
    if item.get_closest_marker("torch"):
        modules.append("torch")
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}")  # the one skip for packages
