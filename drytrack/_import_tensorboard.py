"""Reading the event files of TensorBoard, by TensorBoard's own loader."""

from __future__ import annotations

import dataclasses
import heapq
import math
import operator
import pathlib
from collections.abc import Iterator
from typing import Any

from drytrack._import_model import (
    Attempt,
    ForeignRun,
    Timed,
    histogram_event,
    metric_event,
)
from drytrack.core import log_events
from drytrack.core._media import MediaFile
from drytrack.core.exceptions import ConfigurationError, EventValueError
from drytrack.trackers._backend import import_backend

LOADER = "tensorboard.backend.event_processing.event_file_loader"
PATTERN = "*tfevents*"

SPLITS = ("eval", "test", "train", "training", "val", "valid", "validation")
"""Folders that are a part of the run whose folder they are in, as Keras has it."""

HPARAMS = "hparams"
STATUSES = {1: "completed", 2: "failed", 3: "interrupted"}
"""What TensorBoard calls success, failure and running."""


def find_runs(place: pathlib.Path) -> Iterator[ForeignRun]:
    """Find the runs below a folder: each folder with event files is one.

    Args:
        place: A log directory of TensorBoard, or an event file.

    Raises:
        MissingDependencyError: If TensorBoard is not installed.
        ConfigurationError: If there are no event files.
    """
    loader = import_backend(LOADER, extra="tensorboard", tracker="Reading event files")
    place = place.absolute()
    files = [place] if place.is_file() else sorted(place.rglob(PATTERN))
    files = [path for path in files if path.is_file()]
    if not files:
        msg = f"{place} holds no event files (…tfevents…). Name the log directory."
        raise ConfigurationError(msg)
    top = place.parent if place.is_file() else place
    folders: dict[pathlib.Path, dict[str, list[pathlib.Path]]] = {}
    for path in files:
        folder, source = path.parent, "tensorboard"
        if folder != top and folder.name.lower() in SPLITS:
            folder, source = folder.parent, folder.name
        folders.setdefault(folder, {}).setdefault(source, []).append(path)
    for folder, sources in folders.items():
        inner = folder.relative_to(top)
        run_id = "-".join(inner.parts) or top.name
        key = f"{top.as_posix()}:{inner.as_posix()}"
        found = ForeignRun(
            "tensorboard", str(folder), key, top.name, run_id, attempts=[]
        )
        attempt = Attempt(())
        reader = _Reader(loader, found, attempt)
        attempt.events = reader.read(sources)
        found.attempts = [attempt]
        found.config = reader.read_params(sources)
        yield found


@dataclasses.dataclass
class _Reader:
    """Reads the event files of one run.

    Attributes:
        loader: TensorBoard's module.
        found: The run.
        attempt: Whose status is told by the files.
    """

    loader: Any
    found: ForeignRun
    attempt: Attempt

    def read(self, sources: dict[str, list[pathlib.Path]]) -> Iterator[Timed]:
        """Read all files, in the order of time."""
        streams = [self._read_files(source, files) for source, files in sources.items()]
        return heapq.merge(*streams, key=operator.itemgetter(0))

    def read_params(self, sources: dict[str, list[pathlib.Path]]) -> dict[str, Any]:
        """Return the hyperparameters, which may stand anywhere in the files."""
        params: dict[str, Any] = {}
        for files in sources.values():
            for _, value in self._load(files):
                if _plugin_of(value) == HPARAMS:
                    start = _read_session(value).session_start_info
                    for name, item in sorted(start.hparams.items()):
                        params[name] = _read_hparam(item)
        return params

    def _read_files(self, source: str, files: list[pathlib.Path]) -> Iterator[Timed]:
        kinds: dict[str, str] = {}
        for event, value in self._load(files):
            # Only the first value of a tag says what it is.
            kind = kinds.setdefault(value.tag, _plugin_of(value))
            if kind == HPARAMS:
                end = _read_session(value).session_end_info
                if end.status in STATUSES:
                    self.attempt.status = STATUSES[end.status]
                continue
            try:
                made = self._make(source, kind, event.step, value)
            except (EventValueError, ValueError, TypeError, IndexError):
                made = None
            if made is None:
                self.found.leave_out(kind or "values of no known kind")
            else:
                yield event.wall_time, made

    def _load(self, files: list[pathlib.Path]) -> Iterator[tuple[Any, Any]]:
        for path in files:
            try:
                for event in self.loader.EventFileLoader(str(path)).Load():
                    for value in event.summary.value:
                        yield event, value
            except OSError as err:
                msg = f"{path} cannot be read: {err.strerror or err}."
                raise ConfigurationError(msg) from err

    def _make(
        self, source: str, kind: str, step: int, value: Any
    ) -> log_events.Event | None:
        from tensorboard.util import tensor_util

        if value.WhichOneof("value") != "tensor":
            return None
        array = tensor_util.make_ndarray(value.tensor)
        name = value.tag
        if kind == "scalars":
            return metric_event(
                self.found, source, step, {name: float(array.reshape(()))}
            )
        if kind == "histograms":
            return histogram_event(source, name, step, array.reshape(-1, 3).tolist())
        if kind == "images":
            return _make_image(source, name, step, value, array)
        if kind == "text":
            lines = [_decode(item) for item in array.reshape(-1).tolist()]
            return log_events.TextEvent.unpublished(
                source, name, step, "\n".join(lines)
            )
        return None


def _make_image(
    source: str, name: str, step: int, value: Any, array: Any
) -> log_events.Event | None:
    # Width, height, and the file of each image of the batch.
    files = array.reshape(-1).tolist()[2:]
    if not files:
        return None
    made = log_events.ImageEvent.unpublished(
        source, name, step, files[0], value.metadata.summary_description or None
    )
    return made if isinstance(made.image, MediaFile) else None


def _plugin_of(value: Any) -> str:
    return str(value.metadata.plugin_data.plugin_name)


def _read_session(value: Any) -> Any:
    from tensorboard.plugins.hparams import plugin_data_pb2

    return plugin_data_pb2.HParamsPluginData.FromString(
        value.metadata.plugin_data.content
    )


def _read_hparam(item: Any) -> Any:
    kind = item.WhichOneof("kind")
    found = getattr(item, kind) if kind else None
    if isinstance(found, float) and math.isfinite(found) and found.is_integer():
        return int(found)  # it knows no integers
    return found if isinstance(found, (bool, float, str)) else None


def _decode(item: bytes | str) -> str:
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else item
