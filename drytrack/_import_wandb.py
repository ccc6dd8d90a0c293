"""Reading the files of offline runs of W&B: ``run-*.wandb``.

Such a file is a log as LevelDB keeps it, in blocks of 32 KiB, of messages that
the wandb package defines.

Source:
    github.com/google/leveldb, doc/log_format.md; W&B computes the checksum with
    zlib, and begins the file with ``:W&B`` and a version, in seven bytes.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from drytrack._import_model import (
    Attempt,
    ForeignRun,
    Timed,
    histogram_event,
    metric_event,
)
from drytrack._summaries import flatten
from drytrack.core import log_events
from drytrack.core._warn import warn
from drytrack.core.exceptions import (
    ConfigurationError,
    EventValueError,
    RecordWarning,
)
from drytrack.trackers._backend import import_backend

MESSAGES = "wandb.proto.wandb_internal_pb2"
BLOCK = 32 * 1024
MAGIC = b":W&B"
HEAD = struct.Struct("<IHB")  # checksum, length, kind
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4

SOURCE, SYSTEM = "wandb", "system"


def find_runs(place: pathlib.Path) -> Iterator[ForeignRun]:
    """Find the runs below a folder; files of one run are its attempts.

    Args:
        place: A folder of W&B, or a file of one run.

    Raises:
        MissingDependencyError: If W&B is not installed.
        ConfigurationError: If there are no such files.
    """
    messages = import_backend(MESSAGES, extra="wandb", tracker="Reading W&B")
    files = [place] if place.is_file() else list(place.rglob("*.wandb"))
    # Beside the runs there is a link to the latest one.
    files = sorted({path.resolve() for path in files if path.is_file()})
    if not files:
        msg = f"{place} holds no run-*.wandb files. Name the folder of offline runs."
        raise ConfigurationError(msg)
    parts: dict[str, list[_File]] = {}
    for path in files:
        records = _read_records(path, messages.Record)
        run = next((r.run for r in records if r.HasField("run")), None)
        if run is None:
            warn(f"{path} does not tell its run, and is left out.", RecordWarning)
            continue
        key = f"{run.entity}/{run.project}/{run.run_id}"
        parts.setdefault(key, []).append(_File(path, messages.Record, run))
    for key, of_run in parts.items():
        of_run.sort(key=lambda file: file.started)
        yield _make_run(key, of_run)


@dataclasses.dataclass
class _File:
    """A file of one attempt.

    Attributes:
        path: The file.
        record_class: Of its messages.
        run: What it tells of the run.
    """

    path: pathlib.Path
    record_class: Any
    run: Any

    @property
    def started(self) -> float:
        """When the attempt started."""
        return _seconds(self.run.start_time)

    @property
    def files(self) -> pathlib.Path:
        """The folder of images and tables."""
        return self.path.parent / "files"


def _read_records(path: pathlib.Path, record_class: Any) -> Iterator[Any]:
    """Read the messages, as far as they can be read."""
    try:
        for data in read_log(path):
            record = record_class()
            record.ParseFromString(data)
            yield record
    except OSError as err:
        msg = f"{path} cannot be read: {err.strerror or err}."
        raise ConfigurationError(msg) from err


def read_log(path: pathlib.Path) -> Iterator[bytes]:
    """Read the entries of a log; what is damaged or cut off is told, and left out.

    Args:
        path: The file.

    Raises:
        ConfigurationError: If it is something else.
        OSError: If it cannot be read.
    """
    parts = b""
    with path.open("rb") as file:
        for number in itertools.count():
            block = file.read(BLOCK)
            at = 0
            if number == 0:
                if not block.startswith(MAGIC):
                    raise ConfigurationError(f"{path} is no file of W&B.")
                at = HEAD.size
            while at + HEAD.size <= len(block):
                checksum, length, kind = HEAD.unpack_from(block, at)
                at += HEAD.size
                data = block[at : at + length]
                if not kind and not length:
                    break  # the rest is padding
                if checksum != zlib.crc32(data, zlib.crc32(bytes([kind]))):
                    _tell_damage(path, number * BLOCK + at)
                    parts = b""
                    break  # the next block begins anew
                at += length
                parts = data if kind in (WHOLE, FIRST) else parts + data
                if kind in (WHOLE, LAST):
                    yield parts
                    parts = b""
            if len(block) < BLOCK:
                return


def _tell_damage(path: pathlib.Path, at: int) -> None:
    msg = f"{path} is damaged or cut off at byte {at}; what can be read is kept."
    warn(msg, RecordWarning)


def _make_run(key: str, files: list[_File]) -> ForeignRun:
    runs = [file.run for file in files]
    first = runs[0]
    name = _newest([run.display_name for run in runs])
    found = ForeignRun(
        "wandb",
        place=str(files[-1].path),
        key=key,
        experiment=first.project or "uncategorized",
        run_id=first.run_id,
        attempts=[],
        name=name if name != first.run_id else None,
        notes=_newest([run.notes for run in runs]),
        tags=list(dict.fromkeys(tag for run in runs for tag in run.tags)),
        config=_read_config(first.config.update),
    )
    found.attempts = [_read_attempt(found, file, files[0].started) for file in files]
    return found


def _newest(texts: list[str]) -> str:
    """Return the last text that is not empty."""
    return next(filter(None, reversed(texts)), "")


def _read_attempt(found: ForeignRun, file: _File, began: float) -> Attempt:
    environment = {"host": file.run.host} if file.run.host else {}
    attempt = Attempt((), file.started, status="interrupted", environment=environment)
    attempt.events = _Reader(found, file, began, attempt).read()
    return attempt


@dataclasses.dataclass
class _Reader:
    """Reads one attempt.

    Attributes:
        found: The run.
        file: The attempt's file.
        began: When the first attempt started.
        attempt: Whose status and summary the file tells.
    """

    found: ForeignRun
    file: _File
    began: float
    attempt: Attempt

    def read(self) -> Iterator[Timed]:
        """Read what the file tells."""
        time_s = self.file.started
        logged: set[str] = set()
        summary: dict[str, Any] = {}
        for record in _read_records(self.file.path, self.file.record_class):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                row = _nest(record.history.item)
                time_s = float(row.get("_timestamp", time_s))
                logged.update(row)
                step = int(row.get("_step", record.history.step.num))
                for event in self._read_row(row, step):
                    yield time_s, event
            elif kind == "stats":
                at_s = _seconds(record.stats.timestamp)
                values = flatten(_nest(record.stats.item))
                seconds = max(0, int(at_s - self.began))
                made = metric_event(
                    self.found, SYSTEM, seconds, _numbers(values), axis="seconds"
                )
                if made is not None and values:
                    yield max(at_s, self.file.started), made
            elif kind == "summary":
                summary.update(_nest(record.summary.update))
            elif kind in ("config", "run"):
                config = record.config if kind == "config" else record.run.config
                params = _read_config(config.update)
                # The first attempt starts with what it was given.
                if params and (kind == "config" or self.file.started > self.began):
                    yield time_s, log_events.ParamsEvent.unpublished(params)
            elif kind == "artifact":
                self.found.leave_out("artifacts")
            elif kind == "exit":
                failed = record.exit.exit_code != 0
                self.attempt.status = "failed" if failed else "completed"
        self.attempt.summary = {
            name: value
            for name, value in summary.items()
            if name not in logged and not name.startswith("_")
        }

    def _read_row(self, row: dict[str, Any], step: int) -> Iterator[log_events.Event]:
        """Return the events of one call of ``log``."""
        values: dict[str, float] = {}
        others: list[tuple[str, Any]] = []
        for name, value in _walk(row):
            if isinstance(value, (bool, int, float)):
                values[name] = float(value)
            else:
                others.append((name, value))
        if values:
            event = metric_event(self.found, SOURCE, step, values)
            if event is not None:
                yield event
        for name, value in others:
            try:
                made = list(self._make(name, value, step))
            except (EventValueError, OSError, ValueError, KeyError, TypeError):
                made = []
            if not made:
                kind = value.get("_type") if isinstance(value, dict) else None
                self.found.leave_out(str(kind or type(value).__name__))
            yield from made

    def _make(self, name: str, value: Any, step: int) -> Iterable[log_events.Event]:
        if isinstance(value, str):
            return [log_events.TextEvent.unpublished(SOURCE, name, step, value)]
        if not isinstance(value, dict):
            return []
        kind = value["_type"]
        if kind == "histogram":
            made = histogram_event(SOURCE, name, step, _read_bins(value))
            return [made] if made is not None else []
        if kind == "image-file":
            return [self._image(name, step, value["path"], value.get("caption"))]
        if kind == "images/separated":
            captions = value.get("captions") or [None] * len(value["filenames"])
            return [
                self._image(f"{name}/{number}", step, path, caption or None)
                for number, (path, caption) in enumerate(
                    zip(value["filenames"], captions, strict=True)
                )
            ]
        if kind == "table-file":
            table = json.loads((self.file.files / value["path"]).read_bytes())
            columns = [str(column) for column in table["columns"]]
            return [
                log_events.TableEvent.unpublished(
                    SOURCE, name, step, columns, table["data"]
                )
            ]
        return []

    def _image(
        self, name: str, step: int, path: str, caption: str | None
    ) -> log_events.Event:
        data = (self.file.files / path).read_bytes()
        return log_events.ImageEvent.unpublished(SOURCE, name, step, data, caption)


def _walk(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Return what was logged, nested names joined by dots; not what W&B adds."""
    for key, value in row.items():
        name = f"{prefix}{key}"
        if not prefix and key in ("_step", "_timestamp", "_runtime"):
            continue
        if isinstance(value, dict) and "_type" not in value:
            yield from _walk(value, f"{name}.")
        else:
            yield name, value


def _nest(items: Iterable[Any]) -> dict[str, Any]:
    """Return named values as they were before their names were taken apart."""
    row: dict[str, Any] = {}
    for item in items:
        *path, last = getattr(item, "nested_key", None) or [item.key]
        inside = row
        for part in path:
            deeper = inside.setdefault(part, {})
            if not isinstance(deeper, dict):
                deeper = inside[part] = {}
            inside = deeper
        inside[last] = json.loads(item.value_json)
    return row


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, (int, float))
    }


def _read_bins(value: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    counts = value["values"]
    if "packedBins" in value:
        packed = value["packedBins"]
        edges = [packed["min"] + packed["size"] * i for i in range(len(counts) + 1)]
    else:
        edges = value["bins"]
    return list(zip(edges, edges[1:], counts, strict=False))


def _read_config(items: Iterable[Any]) -> dict[str, Any]:
    config = _nest(items)
    config.pop("_wandb", None)  # of its own
    return config


def _seconds(time: Any) -> float:
    return float(time.seconds + time.nanos / 1e9)
