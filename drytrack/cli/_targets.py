"""Trackers as they are named on a command line: ``csv``, ``sqlalchemy:URL``."""

from __future__ import annotations

import importlib
import inspect

import click

from drytrack.backends import find_backend
from drytrack.core.exceptions import DrytrackError
from drytrack.core.track import Tracker


def make_tracker(target: str) -> Tracker:
    """Return the tracker that a ``--to`` names.

    Args:
        target: A backend's name, or ``package.module.Class``; then, behind a
            colon, what the tracker is made with, as its first argument.

    Raises:
        UsageError: If there is no such tracker, or it cannot be made so.
        UnknownBackendError: If there is no backend of that name.
        MissingDependencyError: If its package is not installed.
    """
    name, colon, argument = target.partition(":")
    cls = _import_class(name) if "." in name else find_backend(name)
    arguments = [argument] if colon else []
    try:
        return cls(*arguments)
    except DrytrackError:
        raise
    except (TypeError, ValueError, OSError) as err:
        msg = f"{name} cannot be made with {argument!r}: {err}."
        raise click.UsageError(msg) from err


def _import_class(name: str) -> type[Tracker]:
    module_name, _, class_name = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as err:
        raise click.UsageError(f"There is no tracker {name!r}: {err}.") from err
    if not (inspect.isclass(found) and issubclass(found, Tracker)):
        raise click.UsageError(f"{name!r} is no tracker class.")
    return found
