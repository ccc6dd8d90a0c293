"""Which trackers every new experiment starts with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from drytrack.core import _defaults
from drytrack.core._warn import warn
from drytrack.core.exceptions import (
    DrytrackWarning,
    MissingDependencyError,
    TrackerNameError,
    TrackerNotFoundError,
    UnknownModeError,
)
from drytrack.core.track import Tracker

__all__ = [
    "extend_default_trackers",
    "init_trackers",
    "remove_all_default_trackers",
    "remove_default_tracker",
]


def _standard() -> list[Tracker]:
    from drytrack.trackers.builtin_logging import BuiltinLogger

    bars = _optional("the progress bars", _bars)
    return [BuiltinLogger(log_metrics=not bars), *bars, *_optional("YAML", _yaml)]


def _hydra() -> list[Tracker]:
    from drytrack.trackers.builtin_logging import BuiltinLogger

    logger = BuiltinLogger.for_hydra()
    return [
        logger,
        *_optional("the progress bars", _fleeting_bars),
        *_optional("YAML", _yaml),
    ]


def _minimal() -> list[Tracker]:
    from drytrack.trackers.builtin_logging import BuiltinLogger

    bars = _optional("the progress bars", _training_bars)
    return [BuiltinLogger.minimal(log_metrics=not bars), *bars]


def _bars() -> Tracker:
    from drytrack.trackers.tqdm import TqdmLogger

    return TqdmLogger()


def _fleeting_bars() -> Tracker:
    from drytrack.trackers.tqdm import TqdmLogger

    return TqdmLogger(leave=False)


def _training_bars() -> Tracker:
    from drytrack.trackers.tqdm import TqdmLogger

    return TqdmLogger(training_bar=True)


def _yaml() -> Tracker:
    from drytrack.trackers.yaml import YamlDumper

    return YamlDumper()


def _optional(what: str, make: Callable[[], Tracker]) -> list[Tracker]:
    """Make a default tracker, or warn that its package is missing."""
    try:
        return [make()]
    except MissingDependencyError as err:
        warn(f"A default tracker is left out ({what}). {err}", DrytrackWarning)
        return []


_MODES: Final[dict[str, Callable[[], list[Tracker]]]] = {
    "standard": _standard,
    "hydra": _hydra,
    "minimal": _minimal,
    "none": list,
}


def init_trackers(mode: str = "standard") -> None:
    """Choose the default trackers of every experiment made from now on.

    ``DRYTRACK_INIT_MODE`` chooses where this is never called.

    Args:
        mode: ``"standard"``: logger, bars and YAML metadata, on standard error.
            ``"hydra"``: the same on standard output, through Hydra's handlers,
            with bars that leave nothing behind. ``"minimal"``: little text, no
            metadata files. ``"none"``: silent.

    Raises:
        UnknownModeError: If there is no such mode.
    """
    make = _MODES.get(mode) if isinstance(mode, str) else None
    if make is None:
        known = ", ".join(map(repr, _MODES))
        msg = f"There is no mode {mode!r}. Pass one of {known}."
        raise UnknownModeError(msg)
    trackers = make()
    _defaults.trackers.clear()
    _defaults.chosen = True
    extend_default_trackers(trackers)


def extend_default_trackers(trackers: Sequence[Tracker]) -> None:
    """Add trackers to those of every experiment made from now on.

    Args:
        trackers: Trackers, each under its own ``name``.

    Raises:
        TrackerNameError: If a name is taken; then none is added.
    """
    defaults = _defaults.default_trackers()
    added: dict[str, Tracker] = {}
    for tracker in trackers:
        if not isinstance(tracker, Tracker):
            msg = f"{tracker!r} is no tracker. Pass instances of tracker classes."
            raise TypeError(msg)
        if tracker.name in defaults or tracker.name in added:
            msg = (
                f"A default tracker is named {tracker.name!r} already. Remove it "
                f"first: remove_default_tracker({tracker.name!r})."
            )
            raise TrackerNameError(msg)
        added[tracker.name] = tracker
    defaults.update(added)


def remove_default_tracker(name: str) -> None:
    """Leave a tracker out of every experiment made from now on.

    Args:
        name: Its name, or its class name where that says which.

    Raises:
        TrackerNotFoundError: If there is no default tracker of that name.
    """
    defaults = _defaults.default_trackers()
    by_class = [k for k, t in defaults.items() if type(t.innermost).__name__ == name]
    if name not in defaults and len(by_class) == 1:
        name = by_class[0]
    if name not in defaults:
        known = ", ".join(map(repr, defaults)) or "none"
        msg = f"No default tracker is named {name!r}. There are: {known}."
        raise TrackerNotFoundError(msg)
    del defaults[name]


def remove_all_default_trackers() -> None:
    """Let every experiment made from now on start without trackers."""
    _defaults.default_trackers().clear()
