"""Trackers by name: ours, those that were registered, those of other packages.

Ours are called as their modules in `drytrack.trackers`: ``csv``, ``wandb``. Another
package adds its own by an entry point of the group ``drytrack.trackers``::

    [project.entry-points."drytrack.trackers"]
    markdown = "their_package:MarkdownDumper"
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import inspect
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any

from drytrack.core.exceptions import (
    ConfigurationError,
    MissingDependencyError,
    UnknownBackendError,
)
from drytrack.core.track import Tracker

__all__ = [
    "find_backend",
    "known_backends",
    "make_backend",
    "options_of",
    "register_backend",
]

ENTRY_POINTS = "drytrack.trackers"

ALIASES = {
    "bars": "tqdm",
    "console": "builtin_logging",
    "matplot": "matplotlib",
    "sql": "sqlalchemy",
    "sqlite": "sqlalchemy",
}
"""Other names of ours."""

_registered: dict[str, type[Tracker]] = {}


def register_backend(name: str, cls: type[Tracker]) -> None:
    """Make a tracker class known by a name; it goes before others of that name.

    Args:
        name: What to call it, without commas.
        cls: A class derived from `Tracker`.

    Raises:
        ConfigurationError: If the name or the class is none.
    """
    if not isinstance(name, str) or not name.strip() or "," in name or name == "none":
        msg = f"{name!r} cannot be a backend's name. Pass a word without commas."
        raise ConfigurationError(msg)
    if not (isinstance(cls, type) and issubclass(cls, Tracker)):
        msg = (
            f"backend {name!r} must be a tracker class, got {cls!r}. Derive it from "
            f"drytrack.Tracker, and pass the class, not an instance."
        )
        raise ConfigurationError(msg)
    _registered[name] = cls


def known_backends() -> list[str]:
    """Return the names of all backends, sorted; nothing is imported."""
    return sorted({*_registered, *_own_names(), *_entry_points()})


def find_backend(name: str) -> type[Tracker]:
    """Return the tracker class of a name.

    Args:
        name: Its name, or another one that it goes by, such as ``sqlite``.

    Raises:
        UnknownBackendError: If there is none; the closest names are told.
        MissingDependencyError: If its package is not installed.
        ConfigurationError: If an entry point leads to something else.
    """
    if name in _registered:
        return _registered[name]
    module = ALIASES.get(name, name)
    if module in _own_names():
        return _only_tracker(f"drytrack.trackers.{module}")
    if name in (entries := _entry_points()):
        return _load(name, entries[name])
    known = known_backends()
    msg = (
        f"There is no backend {name!r}.{did_you_mean(name, [*known, *ALIASES])} There "
        f"are: {', '.join(known)}. Another one is made known by register_backend."
    )
    raise UnknownBackendError(msg)


def options_of(cls: type[Tracker]) -> tuple[list[str], bool]:
    """Return which options a class takes by name, and whether it takes any other."""
    parameters = inspect.signature(cls).parameters.values()
    named = [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    return named, takes_any


def make_backend(name: str, options: Mapping[str, Any] | None = None) -> Tracker:
    """Make a tracker.

    Args:
        name: Its name.
        options: Arguments of its class.

    Raises:
        UnknownBackendError: If there is none of that name, or it takes no such
            option.
        MissingDependencyError: If its package is not installed.
    """
    cls = find_backend(name)
    named, takes_any = options_of(cls)
    for option in options or {}:
        if option not in named and not takes_any:
            takes = f"It takes: {', '.join(named)}." if named else "It takes none."
            msg = (
                f"Backend {name!r} takes no option {option!r}."
                f"{did_you_mean(option, named)} {takes}"
            )
            raise UnknownBackendError(msg)
    return cls(**(options or {}))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question that names the closest of the known words, if one is."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=2, cutoff=0.6)
    if not close:
        return ""
    return f" Did you mean {' or '.join(repr(by_lower[name]) for name in close)}?"


def _own_names() -> set[str]:
    trackers = importlib.import_module("drytrack.trackers")
    return {
        module.name
        for module in pkgutil.iter_modules(trackers.__path__)
        if not module.name.startswith("_") and module.name != "base"
    }


def _only_tracker(module_name: str) -> type[Tracker]:
    """Return the tracker class of one of our modules, which hold one each."""
    module = importlib.import_module(module_name)
    public = (getattr(module, name) for name in module.__all__)
    (cls,) = (c for c in public if isinstance(c, type) and issubclass(c, Tracker))
    return cls


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {
        entry.name: entry
        for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)
    }


def _load(name: str, entry: importlib.metadata.EntryPoint) -> type[Tracker]:
    whose = f"{entry.value!r}"
    if entry.dist is not None:
        whose += f" of {entry.dist.name} {entry.dist.version}"
    try:
        cls = entry.load()
    except ImportError as err:
        msg = (
            f"Backend {name!r} ({whose}) cannot be imported: {err}. Install its needs."
        )
        raise MissingDependencyError(msg) from err
    except AttributeError as err:
        msg = f"Backend {name!r} ({whose}) does not exist: {err}. Tell its authors."
        raise ConfigurationError(msg) from err
    if not (isinstance(cls, type) and issubclass(cls, Tracker)):
        msg = f"Backend {name!r} ({whose}) is no tracker class. Tell its authors."
        raise ConfigurationError(msg)
    return cls
