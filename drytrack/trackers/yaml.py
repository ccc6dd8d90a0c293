"""Tracker that writes what a run is made of as YAML that people can read."""

from __future__ import annotations

import importlib
import pathlib
from typing import TYPE_CHECKING, Any

from drytrack.core import log_events
from drytrack.core._names import encode_file_name
from drytrack.core.exceptions import MissingDependencyError
from drytrack.trackers._line_file import replacing
from drytrack.trackers.base import Dumper, numbered

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

__all__ = ["YamlDumper"]


class YamlDumper(Dumper):
    """Writes configuration, model architectures and actors' metadata as YAML.

    In the run's folder::

        config.yaml                  the configuration
        models/<model>.yaml          its architecture
        actors/<model>/<actor>.yaml  what the actor is made of

    Text of several lines is written as such, short lists on one line, and all
    of it loads with ``yaml.safe_load`` as it was. A later attempt of a run
    writes to ``config_2.yaml``, ``models_2``, ``actors_2`` and so on.
    """

    name = "yaml"
    folder_name = "yaml"
    notify = Dumper.notify.extend()

    def __init__(self, par_dir: str | os.PathLike[str] | None = None) -> None:
        """Choose where to write.

        Args:
            par_dir: By default the experiment's.

        Raises:
            MissingDependencyError: If PyYAML is not installed.
        """
        super().__init__(par_dir)
        try:
            importlib.import_module("yaml")
        except ImportError as err:
            msg = "YamlDumper needs the PyYAML package: pip install pyyaml"
            raise MissingDependencyError(msg) from err

    @notify.register
    def _write_config(self, event: log_events.StartExperimentEvent) -> None:
        text = _dump(event.config)
        self._taken: dict[str, tuple[str, ...]] = {}
        self._attempt = event.attempt
        # An unrecorded run whose id was used before knows of no earlier attempt.
        while not _is_free(path := self._path("config", ".yaml"), text):
            self._attempt += 1
        _replace(path, text)

    @notify.register
    def _write_model(self, event: log_events.ModelRegistrationEvent) -> None:
        content = {
            "model_name": event.model_name,
            "model_ts": event.model_ts,
            "architecture": event.architecture_repr,
        }
        self._write("models", event.model_name, content=content)

    @notify.register
    def _write_actor(self, event: log_events.ActorRegistrationEvent) -> None:
        content = {
            "actor_name": event.actor_name,
            "actor_ts": event.actor_ts,
            "model_name": event.model_name,
            "model_ts": event.model_ts,
            "metadata": event.metadata,
        }
        self._write("actors", event.model_name, event.actor_name, content=content)

    def _path(self, stem: str, suffix: str = "") -> pathlib.Path:
        return self.run_dir / numbered(stem, suffix, self._attempt)

    def _write(self, kind: str, *names: str, content: dict[str, Any]) -> None:
        path = self._path(kind)
        for name in names[:-1]:
            path /= encode_file_name(name)
        path /= self._own_file_name(str(path), names)
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, _dump(content))

    def _own_file_name(self, folder: str, names: tuple[str, ...]) -> str:
        """Return a file name, other than those of names that differ in case."""
        suffix, number = ".yaml", 1
        while True:
            file_name = encode_file_name(names[-1], suffix)
            place = f"{folder}/{file_name}".casefold()
            if self._taken.setdefault(place, names) == names:
                return file_name
            number += 1
            suffix = f"%{number}.yaml"  # no encoded name ends like this


def _is_free(path: pathlib.Path, text: bytes) -> bool:
    return not path.exists() or path.read_bytes() == text


def _replace(path: pathlib.Path, text: bytes) -> None:
    with replacing(path) as file:
        file.write(text)


def _dump(data: object) -> bytes:
    from drytrack.trackers._yaml_style import dump

    dump_text: Callable[[object], str] = dump
    return dump_text(data).encode("utf-8", "backslashreplace")
