"""Trackers and experiments from a mapping, a YAML file, OmegaConf or pydantic.

::

    name: digits
    config: {lr: 0.001}
    trackers:
      - provider: csv
      - provider: wandb
        entity: us

Every tracker that has a name can be configured, those of other packages as well
(see `drytrack.backends`); its options are the arguments of its class.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from drytrack import _config_models
from drytrack.backends import did_you_mean, find_backend, known_backends, options_of
from drytrack.core._names import shorten
from drytrack.core._secrets import is_secret_key
from drytrack.core._warn import warn
from drytrack.core.exceptions import (
    ConfigurationError,
    MissingDependencyError,
    RunStateError,
    RunWarning,
    UnknownBackendError,
)
from drytrack.core.experiment import Experiment
from drytrack.delivery import _Wrapper

if TYPE_CHECKING:
    from pydantic import BaseModel

    from drytrack.core.run import Run
    from drytrack.core.track import Tracker

__all__ = [
    "ConfiguredTracker",
    "config_model",
    "config_schema",
    "experiment_from_config",
    "tracker_from_config",
]

_EXPERIMENT_KEYS = (
    "name",
    "par_dir",
    "tags",
    "description",
    "config",
    "default_trackers",
    "trackers",
)


class ConfiguredTracker(_Wrapper):
    """A tracker that opens runs which it alone watches.

    It can be subscribed as any other one, too. Its state is the run, in the form of
    PyTorch's ``Stateful`` protocol: loaded into a new process before `open`, it lets
    that go on with the same run.

    Args:
        tracker: The tracker.
        par_dir: Folder of the runs' records; by default ``DRYTRACK_DIR``, else the
            working directory.
    """

    def __init__(
        self, tracker: Tracker, par_dir: str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__(tracker)
        self._par_dir = par_dir
        self._experiment: Experiment[Any] | None = None
        self._run: Run[Any] | None = None
        self._state: Mapping[str, Any] = {"run": ""}

    @contextlib.contextmanager
    def open(
        self,
        name: str,
        description: str | None = None,
        hparams: Any = None,
    ) -> Iterator[Run[Any]]:
        """Run an experiment that nobody else watches.

        Args:
            name: Name of the experiment.
            description: What it is about.
            hparams: Its configuration.

        Yields:
            The started run.
        """
        if self._run is not None and self._run.status == "running":
            msg = (
                f"Run {self._run.id!r} was still open, and is finished now. Leave its "
                f"`with` block before the next one."
            )
            warn(msg, RunWarning)
            self._run.finish()
        experiment: Experiment[Any] = Experiment(
            hparams, name=name, description=description, par_dir=self._par_dir
        )
        experiment.trackers.remove_all()
        experiment.trackers.subscribe(self.tracker)
        state, self._state = self._state, {"run": ""}
        experiment.load_state_dict(state)
        self._experiment = experiment
        with experiment.create_run() as run:
            self._run = run
            yield run

    def state_dict(self) -> dict[str, str]:
        """Return what a checkpoint keeps of the newest run."""
        if self._experiment is None:
            return dict(self._state)
        return self._experiment.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Let the next `open` go on with the run of a checkpoint.

        Args:
            state_dict: What `state_dict` has returned.

        Raises:
            RunStateError: If a run is open.
            RecordError: If it is no state of a run.
        """
        from drytrack.core._checkpoint import unpack

        unpack(state_dict)
        if self._run is not None and self._run.status == "running":
            msg = (
                f"Run {self._run.id!r} is open, so no state can be loaded. Load it "
                f"before tracker.open(…)."
            )
            raise RunStateError(msg)
        self._experiment = None
        self._state = dict(state_dict)


def tracker_from_config(config: Any) -> ConfiguredTracker:
    """Make a tracker from its configuration.

    Args:
        config: A mapping, the path of a YAML file, an OmegaConf object, or a pydantic
            model, with ``provider`` and the arguments of that tracker's class.

    Raises:
        ConfigurationError: If a key or a value is wrong; where it stands is told.
        UnknownBackendError: If there is no such provider.
        MissingDependencyError: If a package is not installed.
    """
    data, where = _read(config)
    return ConfiguredTracker(_make_tracker(data, where, ""), data.get("par_dir"))


def experiment_from_config(config: Any) -> Experiment[Any]:
    """Make an experiment, with its trackers subscribed, from a configuration.

    Args:
        config: As for `tracker_from_config`, with ``name`` and, if wanted,
            ``par_dir``, ``tags``, ``description``, ``config`` (the parameters),
            ``trackers`` (a list, or a mapping by name; one that is called as a
            default one takes its place) and ``default_trackers`` (false leaves
            those out).

    Raises:
        ConfigurationError: If a key or a value is wrong; where it stands is told.
        UnknownBackendError: If there is no such provider.
        MissingDependencyError: If a package is not installed.
    """
    data, where = _read(config)
    for key in data:
        if key not in _EXPERIMENT_KEYS:
            raise _key_error(where, key, data[key], _EXPERIMENT_KEYS)
    entries = data.get("trackers") or []
    if not isinstance(entries, (list, tuple, Mapping)):
        msg = f"{where('trackers')} is {shorten(entries)}. Make it a list or a mapping."
        raise ConfigurationError(msg)
    named: dict[str, Tracker] = {}
    if isinstance(entries, Mapping):
        for name, entry in entries.items():
            named[str(name)] = _make_tracker(entry, where, f"trackers.{name}")
    else:
        for index, entry in enumerate(entries):
            path = f"trackers[{index}]"
            tracker = _make_tracker(entry, where, path)
            if tracker.name in named:
                msg = (
                    f"{where(path)} is a second tracker named {tracker.name!r}. Give "
                    f"both a name: make trackers a mapping."
                )
                raise ConfigurationError(msg)
            named[str(tracker.name)] = tracker
    model = _config_models.make_experiment_model(Any)
    checked = _validate(model, {**data, "trackers": []}, where, "")
    experiment: Experiment[Any] = Experiment(
        data.get("config"),
        name=checked["name"],
        par_dir=checked["par_dir"],
        tags=checked["tags"],
        description=checked["description"],
    )
    if not checked["default_trackers"]:
        experiment.trackers.remove_all()
    for name in named.keys() & experiment.trackers.named_trackers.keys():
        experiment.trackers.remove(name)  # a default one, configured here
    experiment.trackers.subscribe(**named)
    return experiment


def config_model(provider: str) -> type[BaseModel]:
    """Return the pydantic model of a tracker's configuration.

    Args:
        provider: Name of the tracker.

    Raises:
        UnknownBackendError: If there is none of that name.
        MissingDependencyError: If a package is not installed.
    """
    return _config_models.make_tracker_model(provider)


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of an experiment's configuration, for editors.

    It holds the trackers whose packages are installed.

    Raises:
        MissingDependencyError: If pydantic is not installed.
    """
    model = _config_models.make_experiment_model(_config_models.any_tracker())
    return model.model_json_schema()


class _Where:
    """Tells where in which file something stands."""

    def __init__(self, file: pathlib.Path | None) -> None:
        self._file = file

    def __call__(self, path: str) -> str:
        """Return a path of keys, with the file that it is in."""
        path = path or "The configuration"
        return f"{path} in {self._file}" if self._file is not None else path


def _read(config: Any) -> tuple[Mapping[str, Any], _Where]:
    """Return a configuration as a mapping, and what tells where it stands."""
    file = None
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is not None and omegaconf.OmegaConf.is_config(config):
        try:
            config = omegaconf.OmegaConf.to_container(
                config, resolve=True, throw_on_missing=True
            )
        except omegaconf.errors.OmegaConfBaseException as err:
            found = " ".join(str(err).split())  # several lines
            msg = f"The configuration cannot be resolved: {found}. Give it a value."
            raise ConfigurationError(msg) from err
    elif hasattr(config, "model_dump"):  # a pydantic model
        config = config.model_dump(by_alias=True)
    elif isinstance(config, (str, os.PathLike)):
        file = pathlib.Path(config)
        config = _read_yaml(file)
    where = _Where(file)
    if not isinstance(config, Mapping):
        msg = (
            f"{where('')} is a {type(config).__name__}: {shorten(config)}. Make it a "
            f"mapping."
        )
        raise ConfigurationError(msg)
    return config, where


def _read_yaml(file: pathlib.Path) -> Any:
    try:
        import yaml
    except ModuleNotFoundError as err:
        msg = f"{file} needs the pyyaml package: pip install pyyaml"
        raise MissingDependencyError(msg) from err
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as err:
        msg = f"The configuration {str(file)!r} cannot be read: {err}. Pass its path."
        raise ConfigurationError(msg) from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        found = " ".join(str(err).split())  # several lines
        msg = f"{file} is no valid YAML: {found}. Correct it there."
        raise ConfigurationError(msg) from err


def _make_tracker(entry: Any, where: _Where, path: str) -> Tracker:
    if hasattr(entry, "model_dump"):
        entry = entry.model_dump(by_alias=True)
    if not isinstance(entry, Mapping):
        msg = (
            f"{where(path)} is {shorten(entry)}. Make it a mapping with a provider, "
            f"such as {{provider: csv}}."
        )
        raise ConfigurationError(msg)
    prefix = f"{path}." if path else ""
    provider = entry.get("provider")
    known = known_backends()
    if not isinstance(provider, str):
        found = "missing" if provider is None else shorten(provider)
        msg = (
            f"{where(f'{prefix}provider')} is {found}. Name one of {', '.join(known)}."
        )
        raise UnknownBackendError(msg)
    try:
        cls = find_backend(provider)
    except UnknownBackendError:
        msg = (
            f"{where(f'{prefix}provider')} is {provider!r}, which is none."
            f"{did_you_mean(provider, known)} There are: {', '.join(known)}."
        )
        raise UnknownBackendError(msg) from None
    except MissingDependencyError as err:
        msg = f"{where(f'{prefix}provider')} is {provider!r}. {err}"
        raise MissingDependencyError(msg) from err
    named, takes_any = options_of(cls)
    for key, value in entry.items():
        if key not in ("provider", *named) and not takes_any:
            raise _key_error(where, f"{prefix}{key}", value, ["provider", *named])
    options = _validate(config_model(provider), entry, where, path)
    given = {key: options[key] for key in entry if key != "provider"}
    try:
        return cls(**given)
    except MissingDependencyError as err:
        msg = f"{where(f'{prefix}provider')} is {provider!r}. {err}"
        raise MissingDependencyError(msg) from err


def _validate(
    model: type[BaseModel], data: Mapping[str, Any], where: _Where, path: str
) -> dict[str, Any]:
    """Return the checked fields of a model."""
    pydantic = _config_models.import_pydantic()
    try:
        return model.model_validate(dict(data)).model_dump(by_alias=True)
    except pydantic.ValidationError as err:
        first = err.errors()[0]
        is_missing = first["type"] == "missing"
        keys = first["loc"] if is_missing else _follow(first["loc"], data)
        full = path
        for key in keys:
            full += f"[{key}]" if isinstance(key, int) else f".{key}"
        full = full.removeprefix(".")
        secret = next((str(key) for key in keys if is_secret_key(str(key))), "")
        value = "missing" if is_missing else _show(secret, first["input"])
        msg = f"{where(full)} is {value}. {first['msg']}."
        raise ConfigurationError(msg) from err


def _follow(loc: tuple[int | str, ...], data: Any) -> list[int | str]:
    """Return the part of an error's place that is in the data.

    Where a type is a union, the names of its members stand in between.
    """
    keys = []
    for key in loc:
        try:
            data = data[key]
        except (LookupError, TypeError):
            continue
        keys.append(key)
    return keys


def _key_error(where: _Where, path: Any, value: Any, known: Any) -> ConfigurationError:
    path = str(path)
    key = path.rpartition(".")[2]
    msg = (
        f"{where(path)} = {_show(key, value)} is no key there."
        f"{did_you_mean(key, known)} There are: {', '.join(known)}."
    )
    return ConfigurationError(msg)


def _show(key: str, value: Any) -> str:
    """Return a value for an error, unless it is a secret."""
    return "***" if is_secret_key(key) else shorten(value)
