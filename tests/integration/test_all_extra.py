"""The environment of the backends' tests, which is made of the extra ``all``."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

pytestmark = [
    pytest.mark.backend,
    pytest.mark.timeout(600),  # it starts a process, on a machine that may be busy
]


def needs_of(extra):
    """Return what an extra of drytrack asks for here, extras within it included."""
    found = []
    for line in importlib.metadata.requires("drytrack"):
        need = Requirement(line)
        if need.marker is None or not need.marker.evaluate({"extra": extra}):
            continue
        if need.name == "drytrack":
            for inner in need.extras:
                found += needs_of(inner)
        else:
            found.append(need)
    return found


def test_everything_that_all_asks_for_is_installed():
    needs = needs_of("all")

    versions = {need.name: importlib.metadata.version(need.name) for need in needs}
    assert {"clearml", "dvclive", "mlflow", "neptune", "wandb"} <= set(versions)
    for need in needs:
        assert versions[need.name] in need.specifier, str(need)


def test_no_package_is_at_odds_with_another():
    command = [sys.executable, "-m", "pip", "check"]

    checked = subprocess.run(command, capture_output=True, text=True)

    assert checked.returncode == 0, checked.stdout
