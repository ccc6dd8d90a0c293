"""Pydantic models of tracker configurations, made from the trackers' constructors.

The signature of a tracker's class is the one source of what may be configured: its
parameters, their types and their defaults.
"""

from __future__ import annotations

import inspect
import os
import pathlib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from drytrack.backends import ALIASES, find_backend, known_backends
from drytrack.core.exceptions import MissingDependencyError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from drytrack.core.track import Tracker

PLAIN = (str, int, float, bool, type(None), pathlib.Path)
"""Types that a configuration file can hold; whatever else may be anything."""


def import_pydantic() -> types.ModuleType:
    """Import pydantic.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    try:
        import pydantic
    except ModuleNotFoundError as err:
        msg = 'Configurations need the pydantic package: pip install "drytrack[config]"'
        raise MissingDependencyError(msg) from err
    return pydantic


def make_tracker_model(provider: str) -> type[BaseModel]:
    """Make the model of a tracker's configuration.

    Args:
        provider: Name of the tracker.

    Raises:
        UnknownBackendError: If there is none of that name.
        MissingDependencyError: If a package is not installed.
    """
    pydantic = import_pydantic()
    cls = find_backend(provider)
    other_names = [name for name, module in ALIASES.items() if module == provider]
    fields: dict[str, Any] = {
        "provider": (Literal[provider, *other_names], provider),
    }
    extra: Literal["allow", "forbid"] = "forbid"
    hints = _read_hints(cls)
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            extra = "allow"
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            kind = hints.get(parameter.name, Any)
            required = parameter.default is parameter.empty
            default = ... if required else parameter.default
            name = parameter.name
            if hasattr(pydantic.BaseModel, name):  # an attribute of every model
                default = pydantic.Field(default, alias=name)
                name += "_"
            fields[name] = (kind, default)
    model: type[BaseModel] = pydantic.create_model(
        f"{cls.__name__}Config",
        __config__=pydantic.ConfigDict(extra=extra, protected_namespaces=()),
        __doc__=(inspect.getdoc(cls) or "").partition("\n")[0],
        **fields,
    )
    return model


def make_experiment_model(tracker: Any) -> type[BaseModel]:
    """Make the model of an experiment's configuration.

    Args:
        tracker: The type of a tracker's configuration.
    """
    pydantic = import_pydantic()
    described = pydantic.Field
    model: type[BaseModel] = pydantic.create_model(
        "ExperimentConfig",
        __config__=pydantic.ConfigDict(extra="forbid"),
        __doc__="An experiment of drytrack and its trackers.",
        name=(str, described(description="Name of the experiment.")),
        par_dir=(str | None, described(None, description="Folder of the runs.")),
        tags=(list[str], described([], description="Labels of the runs.")),
        description=(str | None, described(None, description="What it is about.")),
        config=(Any, described(None, description="The parameters, any data.")),
        default_trackers=(
            bool,
            described(default=True, description="Whether the default ones take part."),
        ),
        trackers=(
            list[tracker] | dict[str, tracker],
            described([], description="Trackers, or trackers by name."),
        ),
    )
    return model


def any_tracker() -> Any:
    """Return the type of any tracker's configuration, told apart by its provider."""
    models = list(installed_models().values())
    return Annotated[
        Union[tuple(models)],  # noqa: UP007  # of a list that is known when it runs
        import_pydantic().Field(discriminator="provider"),
    ]


def installed_models() -> dict[str, type[BaseModel]]:
    """Return the model of each tracker whose module can be imported."""
    models = {}
    for provider in known_backends():
        try:
            models[provider] = make_tracker_model(provider)
        except ImportError:
            continue
    return models


def _read_hints(cls: type[Tracker]) -> dict[str, Any]:
    """Return the types of the constructor's parameters, as far as they are plain."""
    module = inspect.getmodule(cls)
    names = {
        "os": os,
        "pathlib": pathlib,
        "Path": pathlib.Path,
        "Mapping": Mapping,
        "Sequence": Sequence,
        "Literal": Literal,
        "Any": Any,
        **vars(typing),
        **(vars(module) if module is not None else {}),
    }
    hints = {}
    for name, annotation in inspect.get_annotations(cls.__init__).items():
        if isinstance(annotation, str):
            try:
                # What is imported for type checkers alone cannot be known here.
                annotation = eval(annotation, names)  # noqa: S307  # our own source
            except (NameError, AttributeError, TypeError):
                annotation = Any  # whatever it is
        hints[name] = _simplify(annotation)
    return hints


def _simplify(kind: Any) -> Any:
    """Return a type that a file can hold, for one that may hold more."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal or kind in PLAIN or kind is None:
        return kind
    if origin is os.PathLike or kind is os.PathLike:
        return pathlib.Path
    if origin in (Union, types.UnionType):
        parts = [_simplify(part) for part in arguments]
        return Any if Any in parts else Union[tuple(parts)]  # noqa: UP007  # known when it runs
    if origin in (Mapping, dict) and arguments:
        return dict[_simplify(arguments[0]), _simplify(arguments[1])]  # type: ignore[misc]  # known when it runs
    if origin in (Sequence, list, tuple) and arguments:
        return list[_simplify(arguments[0])]  # type: ignore[misc]  # known when it runs
    return Any
