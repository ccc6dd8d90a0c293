"""The events that a report shows, made again from the tables of a database."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from drytrack.core import _codec, log_events
from drytrack.core._history import Attempt
from drytrack.core._media import MediaFile
from drytrack.core.exceptions import JournalError
from drytrack.core.journal import MAX_BLOBS
from drytrack.trackers import _sql_schema as schema
from drytrack.trackers._sql_progress import attempt_at, find_breaks
from drytrack.trackers._sql_summary import join_float
from drytrack.trackers.sqlalchemy import MEDIA_FOLDER

if TYPE_CHECKING:
    import sqlalchemy as sa

    from drytrack.store import StoredRun

Make = Callable[["_Media", Any], log_events.Event]


def read_events(run: StoredRun) -> Iterator[tuple[log_events.Event, Attempt]]:
    """Yield models, learning rates, media and artifacts, kind by kind.

    What a row has lost (a file of an image that is on another machine) is left
    out.
    """
    from drytrack._store_sql import SQLRun

    if not isinstance(run, SQLRun):
        return
    starts, rewinds, _ = run._shelf.attempts(run._row.id)
    with run._store.database.read() as connection:
        media = _Media(connection, run._store.database.path)
        for table, make in _TABLES.items():
            select = table.select().where(table.c.run_id == run._row.id)
            for row in connection.execute(select.order_by(table.c.seq)):
                try:
                    event = make(media, row)
                except JournalError:
                    continue
                model = getattr(event, "model_name", "")
                breaks = find_breaks(starts, rewinds, model)
                yield event, attempt_at(breaks, row.seq)


class _Media:
    """Gives the contents that other tables name by their hash."""

    def __init__(
        self, connection: sa.Connection, database: pathlib.Path | None
    ) -> None:
        self._connection = connection
        self._folder = database.parent / MEDIA_FOLDER if database else None

    def get(self, name: str) -> MediaFile:
        """Return a content.

        Raises:
            JournalError: If it is not in the database, nor beside it.
        """
        table = schema.media
        row = self._connection.execute(
            table.select().where(table.c.hash == name)
        ).one_or_none()
        data = None if row is None else row.content
        if row is not None and data is None and row.path and self._folder is not None:
            try:
                data = (self._folder / row.path).read_bytes()
            except OSError as err:
                raise JournalError(f"{row.path} cannot be read: {err}.") from err
        if row is None or data is None or _codec.blob_name(data) != name:
            raise JournalError(f"The content {name} is not in the database.")
        return MediaFile("plotly" if row.format == "json" else row.format, data)

    def decode(self, text: str) -> Any:
        """Return a value of JSON text."""
        blobs = _codec.Blobs(lambda name: self.get(name).data, MAX_BLOBS)
        return _codec.decode(json.loads(text), blobs)


def _make_model(_: _Media, row: Any) -> log_events.Event:
    return log_events.ModelRegistrationEvent.unpublished(
        row.name, row.registered, row.architecture or ""
    )


def _make_rate(_: _Media, row: Any) -> log_events.Event:
    rate: Any = None
    if row.lr is not None or row.odd is not None:
        rate = join_float(row.lr, row.odd)
        if row.param_group:
            rate = {row.param_group: rate}
    return log_events.LearningRateEvent.unpublished(
        row.model, row.source, row.epoch, rate, row.scheduler
    )


def _make_histogram(media: _Media, row: Any) -> log_events.Event:
    counts, edges = json.loads(row.counts), json.loads(row.bin_edges)
    context = media.decode(row.context)
    return log_events.HistogramEvent.unpublished(
        row.source, row.name, row.step, counts, edges, context
    )


def _make_image(media: _Media, row: Any) -> log_events.Event:
    cls = log_events.ImageEvent if row.kind == "image" else log_events.FigureEvent
    content = media.get(row.hash)
    return cls.unpublished(row.source, row.name, row.step, content, row.caption)


def _make_table(media: _Media, row: Any) -> log_events.Event:
    columns, cells = media.decode(row.header), media.decode(row.cells)
    return log_events.TableEvent.unpublished(
        row.source, row.name, row.step, columns, cells
    )


def _make_text(_: _Media, row: Any) -> log_events.Event:
    return log_events.TextEvent.unpublished(row.source, row.name, row.step, row.content)


def _make_artifact(media: _Media, row: Any) -> log_events.Event:
    return log_events.ArtifactEvent.unpublished(
        row.name, row.path, row.kind, media.decode(row.metadata), row.artifact_path
    )


_TABLES: dict[sa.Table, Make] = {
    schema.models: _make_model,
    schema.learning_rates: _make_rate,
    schema.histograms: _make_histogram,
    schema.images: _make_image,
    schema.data_tables: _make_table,
    schema.texts: _make_text,
    schema.artifacts: _make_artifact,
}
