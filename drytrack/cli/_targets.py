"""Trackers as they are named on a command line: ``csv``, ``sqlalchemy:URL``."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import click

from drytrack import trackers
from drytrack.core.exceptions import DrytrackError
from drytrack.core.track import Tracker


def make_tracker(target: str) -> Tracker:
    """Return the tracker that a ``--to`` names.

    Args:
        target: A module of `drytrack.trackers`, or ``package.module.Class``; then,
            behind a colon, what the tracker is made with, as its first argument.

    Raises:
        UsageError: If there is no such tracker, or it cannot be made so.
    """
    name, colon, argument = target.partition(":")
    cls = _find_class(name)
    arguments = [argument] if colon else []
    try:
        return cls(*arguments)
    except DrytrackError:
        raise
    except (TypeError, ValueError, OSError) as err:
        msg = f"{name} cannot be made with {argument!r}: {err}."
        raise click.UsageError(msg) from err


def _find_class(name: str) -> type[Tracker]:
    module_name, dot, class_name = name.rpartition(".")
    if dot:
        try:
            found = getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError) as err:
            raise click.UsageError(f"There is no tracker {name!r}: {err}.") from err
        if not (inspect.isclass(found) and issubclass(found, Tracker)):
            raise click.UsageError(f"{name!r} is no tracker class.")
        return found
    known = list_trackers()
    if name not in known:
        msg = f"There is no tracker {name!r}. There are: {', '.join(known)}."
        raise click.UsageError(msg)
    module = importlib.import_module(f"drytrack.trackers.{name}")
    classes = [
        value
        for key in module.__all__
        if inspect.isclass(value := getattr(module, key))
        and issubclass(value, Tracker)
        and value.__module__ == module.__name__
    ]
    # The one that bears the module's name, where there are several.
    classes.sort(key=lambda cls: getattr(cls, "name", "") != name)
    if not classes:
        raise click.UsageError(f"drytrack.trackers.{name} has no tracker.")
    return classes[0]


def list_trackers() -> list[str]:
    """Return the modules that have trackers."""
    names = [module.name for module in pkgutil.iter_modules(trackers.__path__)]
    return [name for name in names if not name.startswith("_") and name != "base"]
