"""Tracker that writes event files for TensorBoard."""

from __future__ import annotations

import io
import itertools
import json
import logging
import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from drytrack.core.exceptions import BackendError
from drytrack.trackers._backend import (
    At,
    Backend,
    MediaFile,
    RunInfo,
    flatten,
    import_backend,
)
from drytrack.trackers._event_file import EventFile, read_messages
from drytrack.trackers._local_server import HOST, serve, show

if TYPE_CHECKING:
    import os

__all__ = ["TensorBoard"]

MARK = "drytrack"
"""Begins the ``node_name`` of what is written, which TensorBoard does not show."""

Layout = Mapping[str, Mapping[str, Sequence[Any]]]
"""Category → chart → what it shows, as for ``SummaryWriter.add_custom_scalars``."""

_logger = logging.getLogger("drytrack")

_KINDS = {"image": "image", "histo": "histogram", "tensor": "text"}


class TensorBoard(Backend):
    """Writes the run to ``<par_dir>/tensorboard/<experiment>/…`` as event files.

    Neither torch nor TensorFlow is needed. Scalars, histograms, images, figures,
    texts and tables have a dashboard each; the configuration is shown as the
    run's hyperparameters, beside its metrics, and as a text. Metrics that share
    their last part, such as ``train/loss`` and ``val/loss``, share a chart of the
    custom scalars.

    What was flushed survives a kill, and nothing is written twice: each value
    carries its sequence number, and they are read back when a run is resumed or
    replayed. TensorBoard keeps values as 32-bit floats. A resumed run that goes
    back some steps shows both attempts.

    Args:
        par_dir: Where to write, by default the experiment's folder.
        start_server: Whether to serve TensorBoard while a run goes on; see
            `launch_dashboard`.
        port: Where to serve it then.
        layout: Custom scalars in place of the charts made by name.
    """

    name = "tensorboard"
    folder_name = "tensorboard"
    notify = Backend.notify.extend()

    _file: EventFile | None = None
    _native: Any = None
    _url: str | None = None

    def __init__(
        self,
        par_dir: str | os.PathLike[str] | None = None,
        *,
        start_server: bool = False,
        port: int = 6006,
        layout: Layout | None = None,
    ) -> None:
        super().__init__(par_dir)
        self._start_server = start_server
        self._port = port
        self._layout = layout

    # -- the run -------------------------------------------------------------------

    def open(self, info: RunInfo) -> None:
        """Open a new event file, beside those of earlier attempts."""
        _import("tensorboardX")
        from tensorboardX.crc32c import crc32c
        from tensorboardX.proto import event_pb2, summary_pb2

        self._event_class = event_pb2.Event
        self._summary = summary_pb2
        self._newest = 0
        # Of another run with the same id, numbers would say nothing.
        self._mark = f"{MARK}:{info.uuid}" if info.uuid else ""
        self._kinds: dict[str, str] = {}
        self._params: dict[str, Any] = {}
        self._params_written = False
        self._last_step = 0
        self._native = self._url = None
        folder = self.run_dir
        for message in read_messages(folder):
            self._recall(event_pb2.Event.FromString(message))
        self._charted = self._chart()  # what the earlier files have said
        self._file = EventFile(folder, crc32c)
        self._file.add(
            event_pb2.Event(
                wall_time=info.created.timestamp(), file_version="brain.Event:2"
            ).SerializeToString()
        )
        if self._start_server:
            try:
                self.launch_dashboard(self._port)
            except (BackendError, OSError) as err:
                _logger.warning("%s", err)

    def last_seq(self) -> int | None:
        """Return the newest sequence number in the event files."""
        return self._newest

    def flush(self) -> None:
        """Hand what was taken to the operating system."""
        if self._file is None:
            return
        chart = self._chart()
        if chart != self._charted:
            from tensorboardX.summary import custom_scalars

            self._add(custom_scalars(chart).value, self._last_step)
            self._charted = chart
        self._file.flush()
        if self._native is not None:
            self._native.flush()

    def finish(self, status: str, error: Mapping[str, str] | None) -> None:
        """Close the files; TensorBoard knows of success, and of nothing else."""
        if self._file is None:
            return
        self._write_params()
        if status == "completed":
            from tensorboardX.summary import hparams

            self._add(hparams({}, {})[2].value, self._last_step)
        self.flush()
        self._file.close()
        self._file = None
        if self._native is not None:
            self._native.close()

    # -- what it takes -------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, float], at: At) -> None:
        """Write scalars."""
        self._write_params()
        make = self._summary.Summary.Value
        for tag in metrics:
            self._kinds.setdefault(tag, "scalar")
        self._add(
            [make(tag=tag, simple_value=value) for tag, value in metrics.items()],
            at.step,
            at.time_s,
        )

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Write a text, and hyperparameters when the first metric comes.

        TensorBoard shows the hyperparameters that it reads first.
        """
        self._params.update(flatten(params))
        text = json.dumps(self._params, indent=2, ensure_ascii=False, default=str)
        self._add_text("config", f"```json\n{text}\n```", self._last_step)

    def log_summary(self, summary: Mapping[str, Any]) -> None:
        """Write numbers as scalars, which are metrics of the run; others as a text."""
        make = self._summary.Summary.Value
        others = {}
        values = []
        for name, value in flatten(summary).items():
            if isinstance(value, (int, float)):
                values.append(make(tag=f"summary/{name}", simple_value=float(value)))
            else:
                others[name] = value
        self._add(values, self._last_step)
        if others:
            rows = [[name, str(value)] for name, value in others.items()]
            text = _markdown(["name", "value"], rows)
            self._add_text("summary", text, self._last_step)

    def log_image(
        self, name: str, image: MediaFile, at: At, caption: str | None
    ) -> None:
        """Write the bytes of an image file as they are."""
        width, height = _measure(image)
        encoded = self._summary.Summary.Image(
            width=width, height=height, colorspace=3, encoded_image_string=image.data
        )
        meta = self._summary.SummaryMetadata(summary_description=caption or "")
        tag = self._tag(name, "image")
        value = self._summary.Summary.Value(tag=tag, image=encoded, metadata=meta)
        self._add([value], at.step, at.time_s)

    def log_histogram(
        self, name: str, counts: Sequence[float], bin_edges: Sequence[float], at: At
    ) -> None:
        """Write a histogram; its moments are those of the bins' centers."""
        counts = [float(count) for count in counts]
        edges = [float(edge) for edge in bin_edges]
        centers = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
        weighed = list(zip(counts, centers, strict=True))
        # TensorBoard knows right edges only: an empty bin in front says the first.
        histo = self._summary.HistogramProto(
            min=edges[0],
            max=edges[-1],
            num=sum(counts),
            sum=sum(n * x for n, x in weighed),
            sum_squares=sum(n * x * x for n, x in weighed),
            bucket_limit=edges,
            bucket=[0.0, *counts],
        )
        tag = self._tag(name, "histogram")
        value = self._summary.Summary.Value(tag=tag, histo=histo)
        self._add([value], at.step, at.time_s)

    def log_text(self, name: str, text: str, at: At) -> None:
        """Write a text, which is shown as Markdown."""
        self._add_text(self._tag(name, "text"), text, at.step, at.time_s)

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], at: At
    ) -> None:
        """Write a table as a text in Markdown."""
        self.log_text(name, _markdown(columns, rows), at)

    # -- looking at it -------------------------------------------------------------

    def launch_dashboard(self, port: int | None = 6006) -> str:
        """Serve TensorBoard for all runs of the experiment, until this one ends.

        It is served to this machine alone. In a notebook it is shown below the
        cell.

        Args:
            port: Where to serve; the next free port is taken where it is in use.

        Returns:
            The address.

        Raises:
            BackendError: If no port is free, or TensorBoard does not start.
        """
        _import("tensorboard")
        start = self.start_event
        folder = (self.par_dir or start.par_dir) / self.folder_name / start.exp_name
        where = ["--logdir", str(folder), "--host", HOST]
        server = serve(
            "tensorboard.main",
            lambda found: [*where, "--port", str(found)],
            6006 if port is None else port,
        )
        self._url = self.enter_context(server)
        show(self._url, "TensorBoard")
        return self._url

    @property
    def url(self) -> str | None:
        """Where TensorBoard is served; None where it is not."""
        return self._url

    @property
    def native(self) -> Any:
        """A ``tensorboardX.SummaryWriter`` on the same folder, made when asked for.

        Its file is closed with the run.
        """
        if self._file is None:
            return None
        if self._native is None:
            from tensorboardX import SummaryWriter

            # It names its file by the second, and overwrites one of that name.
            suffix = f".{uuid.uuid4().hex[:8]}"
            self._native = SummaryWriter(str(self.run_dir), filename_suffix=suffix)
        return self._native

    # -- inside --------------------------------------------------------------------

    def _add(
        self, values: Iterable[Any], step: int, time_s: float | None = None
    ) -> None:
        """Add values as one event, so that they are in the file together."""
        assert self._file is not None  # between open and finish
        summary = self._summary.Summary(value=values)
        if not summary.value:
            return
        if self._mark and self.seq is not None and self.seq > 0:
            summary.value[0].node_name = f"{self._mark}:{self.seq}"
        event = self._event_class(
            wall_time=time.time() if time_s is None else time_s,
            step=step,
            summary=summary,
        )
        self._file.add(event.SerializeToString())
        self._last_step = max(self._last_step, step)

    def _add_text(
        self, tag: str, text: str, step: int, time_s: float | None = None
    ) -> None:
        from tensorboardX.summary import text as make

        value = make(tag, text).value[0]
        value.tag = tag  # without the suffix that is put behind it
        self._add([value], step, time_s)

    def _write_params(self) -> None:
        """Write hyperparameters, once for all attempts."""
        if self._params_written or not self._params:
            return
        from tensorboardX.summary import hparams

        known = {
            name: value
            if isinstance(value, (bool, int, float, str))
            else json.dumps(value, ensure_ascii=False, default=str)
            for name, value in self._params.items()
        }
        self._add(hparams(known, {})[1].value, 0)
        self._params_written = True

    def _tag(self, name: str, kind: str) -> str:
        """Return the name, with its kind where it is another kind's tag already."""
        if self._kinds.setdefault(name, kind) == kind:
            return name
        return f"{name} ({kind})"

    def _chart(self) -> dict[str, Any]:
        """Return the charts of custom scalars."""
        if self._layout is not None:
            return dict(self._layout)
        charts: dict[str, list[str]] = {}
        for tag, kind in self._kinds.items():
            if kind == "scalar" and not tag.startswith("summary/"):
                charts.setdefault(tag.rpartition("/")[2], []).append(tag)
        shared = {
            # Tags are regular expressions here.
            name: ["Multiline", [f"^{re.escape(tag)}$" for tag in tags]]
            for name, tags in charts.items()
            if len(tags) > 1
        }
        return {"metrics": shared} if shared else {}

    def _recall(self, event: Any) -> None:
        """Learn from an event of an earlier attempt."""
        self._last_step = max(self._last_step, event.step)
        for value in event.summary.value:
            mark, _, seq = value.node_name.rpartition(":")
            if mark and mark == self._mark:
                self._newest = max(self._newest, int(seq))
            plugin = value.metadata.plugin_data.plugin_name
            if plugin == "hparams":
                self._params_written = True
            elif plugin in ("", "text"):
                kind = _KINDS.get(value.WhichOneof("value"), "scalar")
                self._kinds.setdefault(value.tag, kind)


def _import(module: str) -> None:
    import_backend(module, extra="tensorboard", tracker="TensorBoard")


def _measure(image: MediaFile) -> tuple[int, int]:
    """Return width and height in pixels; zeros for a drawing."""
    if image.format == "svg":
        return 0, 0
    from PIL import Image  # TensorBoard needs it as well

    with Image.open(io.BytesIO(image.data)) as opened:
        return opened.size


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def line(cells: Iterable[Any]) -> str:
        texts = (re.sub(r"\s+", " ", str(c)).replace("|", "\\|") for c in cells)
        return f"| {' | '.join(texts)} |"

    ruler = line("---" for _ in columns)
    return "\n".join([line(columns), ruler, *map(line, rows)])
