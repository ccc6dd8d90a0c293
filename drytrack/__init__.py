"""drytrack: an event bus between training scripts and whoever watches them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drytrack.backends import register_backend as register_backend
    from drytrack.config import experiment_from_config as experiment_from_config
    from drytrack.config import tracker_from_config as tracker_from_config
    from drytrack.core.experiment import Experiment as Experiment
    from drytrack.core.run import Run as Run
    from drytrack.core.track import Tracker as Tracker
    from drytrack.experiment_logger import ExperimentLogger as ExperimentLogger
    from drytrack.loops import TestLoop as TestLoop
    from drytrack.loops import TrainingLoop as TrainingLoop
    from drytrack.modes import extend_default_trackers as extend_default_trackers
    from drytrack.modes import init_trackers as init_trackers
    from drytrack.modes import (
        remove_all_default_trackers as remove_all_default_trackers,
    )
    from drytrack.modes import remove_default_tracker as remove_default_tracker
    from drytrack.quick import create_multi_tracker as create_multi_tracker
    from drytrack.quick import create_tracker as create_tracker
    from drytrack.quick import setup_tracker as setup_tracker
    from drytrack.replay import replay as replay
    from drytrack.store import open_store as open_store
    from drytrack.store import runs as runs

_HOMES = {
    "Experiment": "drytrack.core.experiment",
    "ExperimentLogger": "drytrack.experiment_logger",
    "Run": "drytrack.core.run",
    "TestLoop": "drytrack.loops",
    "Tracker": "drytrack.core.track",
    "TrainingLoop": "drytrack.loops",
    "create_multi_tracker": "drytrack.quick",
    "create_tracker": "drytrack.quick",
    "experiment_from_config": "drytrack.config",
    "extend_default_trackers": "drytrack.modes",
    "init_trackers": "drytrack.modes",
    "open_store": "drytrack.store",
    "register_backend": "drytrack.backends",
    "remove_all_default_trackers": "drytrack.modes",
    "remove_default_tracker": "drytrack.modes",
    "replay": "drytrack.replay",
    "runs": "drytrack.store",
    "setup_tracker": "drytrack.quick",
    "tracker_from_config": "drytrack.config",
}

__all__ = [
    "Experiment",
    "ExperimentLogger",
    "Run",
    "TestLoop",
    "Tracker",
    "TrainingLoop",
    "create_multi_tracker",
    "create_tracker",
    "experiment_from_config",
    "extend_default_trackers",
    "init_trackers",
    "open_store",
    "register_backend",
    "remove_all_default_trackers",
    "remove_default_tracker",
    "replay",
    "runs",
    "setup_tracker",
    "tracker_from_config",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        return version("drytrack")
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(_HOMES[name]), name)
    # Importing drytrack.replay has put the module here, which is called like its
    # function: the name means one thing, whoever was first to use it.
    return globals().setdefault(name, value)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return [*__all__, "__version__"]
