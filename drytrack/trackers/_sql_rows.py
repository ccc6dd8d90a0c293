"""What each event means as rows: everything but metrics.

A `Row` has no run id: that is known when it is written.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from drytrack._summaries import leaves
from drytrack.core import _media, log_events
from drytrack.core._atomic import replace_file
from drytrack.core._codec import blob_name, dumps, encode
from drytrack.core._constructor import type_name
from drytrack.core._media import MediaFile
from drytrack.trackers import _sql_schema as schema
from drytrack.trackers._sql_schema import name_key
from drytrack.trackers._sql_summary import split_float
from drytrack.trackers.base import split_rates

if TYPE_CHECKING:
    import sqlalchemy as sa

    from drytrack.trackers._sql_insert import Conflict

_VALUES = ("name_key", "name", "value", "number", "seq")
_AT_STEP = ("seq", "source", "name", "step")
_SILENT = (log_events.IterateBatchEvent,)


class Row(NamedTuple):
    """A row to insert.

    Attributes:
        table: Where to.
        columns: Names of its columns, without ``run_id``.
        values: Their values.
        conflict: What to do where it is there.
    """

    table: sa.Table
    columns: tuple[str, ...]
    values: tuple[Any, ...]
    conflict: Conflict = "ignore"


class MediaStore:
    """Keeps images by the hash of their content."""

    def __init__(self, folder: pathlib.Path | None) -> None:
        """Choose where.

        Args:
            folder: A folder; None for the database itself.
        """
        self._folder = folder

    def put(self, data: bytes, ending: str) -> tuple[str, Row]:
        """Keep content; return its hash and its row.

        Raises:
            OSError: If the file cannot be written.
        """
        name = blob_name(data)
        content: bytes | None = data
        path = None
        if self._folder is not None:
            path = f"{name[:2]}/{name}.{ending}"
            target = self._folder / path
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                replace_file(target, data)
            content = None
        columns = ("hash", "format", "size", "path", "content")
        return name, Row(
            schema.media, columns, (name, ending, len(data), path, content)
        )


class RowMaker:
    """Turns the events of a run into rows."""

    def __init__(self, store: MediaStore) -> None:
        """Take the place for what is no text."""
        self._store = store

    def make(
        self, event: log_events.Event, seq: int, attempt: int, time: float
    ) -> list[Row]:
        """Return the rows of an event.

        Raises:
            OSError: If an image cannot be written.
        """
        for kind, maker in _MAKERS.items():
            if isinstance(event, kind):
                return list(maker(self, event, seq))
        if isinstance(event, _SILENT):
            return []
        return list(self._unknown(event, seq, attempt, time))

    def json(self, value: Any, rows: list[Row]) -> str:
        """Return any value as JSON text; its arrays and bytes become rows."""

        def put(data: bytes) -> str:
            name, row = self._store.put(data, "bin")
            rows.append(row)
            return name

        return clean(dumps(encode(value, put)).decode())

    # -- one for each kind of event ----------------------------------------------

    def _model(
        self, event: log_events.ModelRegistrationEvent, seq: int
    ) -> Iterator[Row]:
        name = event.model_name
        columns = ("name_key", "name", "registered", "architecture", "seq")
        architecture = clean(event.architecture_repr)
        row = name_key(name), name, _when(event.model_ts), architecture, seq
        yield Row(schema.models, columns, row, "newest")

    def _source(
        self, event: log_events.ActorRegistrationEvent, seq: int
    ) -> Iterator[Row]:
        name, model = event.actor_name, event.model_name
        rows: list[Row] = []
        metadata = self.json(event.metadata, rows)
        columns = ("name_key", "name", "model", "registered", "metadata", "seq")
        key, when = name_key(model, name), _when(event.actor_ts)
        values = key, name, model, when, metadata, seq
        yield from [*rows, Row(schema.sources, columns, values, "newest")]

    def _params(self, event: log_events.ParamsEvent, seq: int) -> Iterator[Row]:
        yield from self.values(schema.params, event.params, seq)

    def _summary(self, event: log_events.SummaryEvent, seq: int) -> Iterator[Row]:
        yield from self.values(schema.summary_values, event.summary, seq)

    def values(self, table: sa.Table, value: object, seq: int) -> Iterator[Row]:
        """Yield a row for each leaf of nested data, by its dotted name."""
        for name, leaf in leaves(value):
            rows: list[Row] = []
            text = self.json(leaf, rows)
            name = clean(name)
            row = name_key(name), name, text, _number(leaf), seq
            yield from [*rows, Row(table, _VALUES, row, "newest")]

    def _checkpoint(
        self, event: log_events.SaveModelEvent | log_events.LoadModelEvent, seq: int
    ) -> Iterator[Row]:
        kind = "loaded" if isinstance(event, log_events.LoadModelEvent) else "saved"
        columns = ("seq", "kind", "model", "definition", "location", "epoch")
        where = clean(str(event.location))
        definition = clean(event.definition)
        values = seq, kind, event.model_name, definition, where, event.epoch
        yield Row(schema.checkpoints, columns, values)

    def _learning_rate(
        self, event: log_events.LearningRateEvent, seq: int
    ) -> Iterator[Row]:
        columns = (
            *("seq", "position", "model", "source", "epoch"),
            *("param_group", "lr", "odd", "scheduler"),
        )
        scheduler = event.scheduler_name and clean(event.scheduler_name)
        for position, (group, rate) in enumerate(split_rates(event.base_lr)):
            lr = (None, None) if rate is None else split_float(rate)
            at = seq, position, event.model_name, event.source_name, event.epoch
            row = *at, str(group), *lr, scheduler
            yield Row(schema.learning_rates, columns, row)

    def _artifact(self, event: log_events.ArtifactEvent, seq: int) -> Iterator[Row]:
        rows: list[Row] = []
        metadata = self.json(event.metadata, rows)
        columns = ("seq", "name", "path", "kind", "artifact_path", "metadata")
        inside = event.artifact_path and clean(event.artifact_path)
        path, kind = clean(str(event.path)), clean(event.kind)
        values = seq, event.name, path, kind, inside, metadata
        yield from [*rows, Row(schema.artifacts, columns, values)]

    def _histogram(self, event: log_events.HistogramEvent, seq: int) -> Iterator[Row]:
        rows: list[Row] = []
        columns = (*_AT_STEP, "context", "counts", "bin_edges")
        parts = event.context, list(event.counts), list(event.bin_edges)
        # Short lists stay text; what is long would otherwise become a blob.
        texts = (self.json(parts[0], rows), *(dumps(p).decode() for p in parts[1:]))
        yield from [*rows, Row(schema.histograms, columns, (*_at(event, seq), *texts))]

    def _table(self, event: log_events.TableEvent, seq: int) -> Iterator[Row]:
        rows: list[Row] = []
        header = self.json(list(event.columns), rows)
        cells = self.json([list(row) for row in event.rows], rows)
        columns = (*_AT_STEP, "header", "cells")
        values = (*_at(event, seq), header, cells)
        yield from [*rows, Row(schema.data_tables, columns, values)]

    def _text(self, event: log_events.TextEvent, seq: int) -> Iterator[Row]:
        columns = (*_AT_STEP, "content")
        yield Row(schema.texts, columns, (*_at(event, seq), clean(event.text)))

    def _image(
        self, event: log_events.ImageEvent | log_events.FigureEvent, seq: int
    ) -> Iterator[Row]:
        if isinstance(event, log_events.ImageEvent):
            kind, media = "image", event.image
        else:
            kind, media = "figure", event.figure
        if not isinstance(media, MediaFile):
            media = MediaFile("png", _media.png(media))
        ending = "json" if media.format == "plotly" else media.format
        name, row = self._store.put(media.data, ending)
        yield row
        columns = (*_AT_STEP, "kind", "caption", "hash")
        caption = event.caption and clean(event.caption)
        yield Row(schema.images, columns, (*_at(event, seq), kind, caption, name))

    def _unknown(
        self, event: log_events.Event, seq: int, attempt: int, time: float
    ) -> Iterator[Row]:
        name, fields = type_name(type(event)), event.__getstate__()
        fields.pop("_stamp")
        if isinstance(event, log_events.UnknownEvent):
            name, fields = event.type_name, dict(event.fields)
        rows: list[Row] = []
        text = self.json({k: v for k, v in fields.items() if not callable(v)}, rows)
        columns = ("seq", "attempt", "time", "type", "fields")
        values = (seq, attempt, time, name, text)
        yield from [*rows, Row(schema.events, columns, values)]


_MAKERS: dict[Any, Callable[[RowMaker, Any, int], Iterator[Row]]] = {
    log_events.ModelRegistrationEvent: RowMaker._model,
    log_events.ActorRegistrationEvent: RowMaker._source,
    log_events.ParamsEvent: RowMaker._params,
    log_events.SummaryEvent: RowMaker._summary,
    (log_events.SaveModelEvent, log_events.LoadModelEvent): RowMaker._checkpoint,
    log_events.LearningRateEvent: RowMaker._learning_rate,
    log_events.ArtifactEvent: RowMaker._artifact,
    log_events.HistogramEvent: RowMaker._histogram,
    log_events.TableEvent: RowMaker._table,
    log_events.TextEvent: RowMaker._text,
    (log_events.ImageEvent, log_events.FigureEvent): RowMaker._image,
}


def clean(text: str) -> str:
    """Return text that every database takes: PostgreSQL knows no NUL."""
    text = text.replace("\0", "\ufffd") if "\0" in text else text
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _number(value: object) -> float | None:
    """Return what a condition on a parameter compares, where it is a number."""
    if not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _at(event: Any, seq: int) -> tuple[int, str, str, int]:
    return seq, event.source_name, event.name, event.step


def _when(value: object) -> str:
    iso = getattr(value, "isoformat", None)
    return iso() if callable(iso) else clean(str(value))
