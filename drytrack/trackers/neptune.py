"""Tracker that writes Neptune's offline files."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import pathlib
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from drytrack.trackers._backend import (
    At,
    Backend,
    MediaFile,
    RunInfo,
    flatten,
    import_backend,
)
from drytrack.trackers._name_rule import NameRule
from drytrack.trackers._offline_note import find_note, read_seq, write_seq
from drytrack.trackers._run_info import identify, thaw
from drytrack.trackers._vendor_process import environment, same_excepthook

if TYPE_CHECKING:
    import os

__all__ = ["Neptune"]

_opening = threading.Lock()


class Neptune(Backend):
    """Writes the run as Neptune's client does offline: ``<par_dir>/neptune/offline``.

    The hosted service is closed. What is left of Neptune is its client and the
    format of its files, one folder of operations for each attempt of a run.

    How far they go is noted whenever the tracker is flushed. What a killed
    process wrote after that, at most a second's worth, is there twice after the
    run was resumed. Nothing else is.

    Neptune's own collection of code, git state, output, tracebacks and machine
    figures is off unless an option turns it on.

    Args:
        par_dir: Where to write, by default the experiment's folder.
        **options: Of ``neptune.init_run``.
    """

    name = "neptune"
    folder_name = "neptune"
    notify = Backend.notify.extend()
    # Parts of a name are the levels of a tree.
    rule = NameRule(refused=r"^/|(?<=/)/|/$|^ | $", max_length=160)

    _run: Any = None

    def __init__(
        self, par_dir: str | os.PathLike[str] | None = None, **options: Any
    ) -> None:
        super().__init__(par_dir)
        self._options = {
            "capture_hardware_metrics": False,
            "capture_stderr": False,
            "capture_stdout": False,
            "capture_traceback": False,
            "fail_on_exception": False,
            "git_ref": False,
            "source_files": [],
            **options,
        }

    # -- the run -------------------------------------------------------------------

    def open(self, info: RunInfo) -> None:
        """Begin a folder for this attempt."""
        self._run = None
        self._paths: dict[str, str] = {}
        self._levels: set[str] = set()
        folder = (self.par_dir or info.par_dir) / self.folder_name
        folder.mkdir(parents=True, exist_ok=True)
        self._note = find_note(folder, info.uuid or info.run_id)
        self._before = self._noted = read_seq(self._note)
        with (
            _opening,
            environment({"NEPTUNE_DATA_DIRECTORY": str(folder.absolute())}),
            same_excepthook(),
        ):
            neptune = import_backend("neptune", extra="neptune", tracker="Neptune")
            # It says on standard output when it begins and ends.
            logging.getLogger("neptune").setLevel(logging.WARNING)
            self._run = neptune.init_run(
                mode="offline",
                name=info.run_id,
                description=info.description,
                tags=list(info.tags),
                **self._options,
            )
        container = self._run.get_url().rpartition("/")[2]
        (self._folder,) = (folder / "offline").glob(f"run__{container}__*")
        self._assign("drytrack", {"experiment": info.experiment, **identify(info)})

    def last_seq(self) -> int | None:
        """Return the sequence number that was noted with the last flush."""
        return self._noted

    def flush(self) -> None:
        """Write what was taken to its files, and note how far they go."""
        if self._run is not None:
            self._keep(self.taken_seq)

    def finish(self, status: str, error: Mapping[str, str] | None) -> None:
        """Say how it ended, and close the files."""
        if self._run is None:
            return
        self._assign("drytrack", {"status": status})
        self._assign("error", error or {})
        self._keep(self.taken_seq if self.seq is None else self.seq)
        run, self._run = self._run, None
        run.stop()
        if self.seq is not None and self.seq <= self._before:
            shutil.rmtree(self._folder)  # of a replay that brought nothing new

    # -- what it takes -------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, float], at: At) -> None:
        """Append to series; what is not finite becomes a line of ``not_finite``."""
        for name, value in self._unwritten(metrics):
            if math.isfinite(value):
                self._append(name, value, at)
            else:
                text = f"{name} is {value} at {at.axis} {at.step}"
                self._append("not_finite", text, at)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Assign ``parameters/a/b``; the newest value counts."""
        self._assign("parameters", flatten(params))

    def log_summary(self, summary: Mapping[str, Any]) -> None:
        """Assign ``summary/<name>``."""
        self._assign("summary", flatten(summary))

    def log_image(
        self, name: str, image: MediaFile, at: At, caption: str | None
    ) -> None:
        """Append to the series ``images/<name>``."""
        if image.format == "svg":
            self._pass_over("svg images")
            return
        file = self._file(image.data, image.format)
        self._append(f"images/{name}", file, at, description=caption)

    def log_figure(
        self, name: str, figure: MediaFile, at: At, caption: str | None
    ) -> None:
        """Append a picture as an image; a figure of plotly is a file of JSON."""
        if figure.format == "plotly":
            self._upload(f"figures/{name}/{at.step}", figure.data, "json")
        else:
            self.log_image(name, figure, at, caption)

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], at: At
    ) -> None:
        """Upload a table as the file ``tables/<name>/<step>`` of CSV."""
        written = io.StringIO(newline="")
        csv.writer(written).writerows([columns, *rows])
        self._upload(f"tables/{name}/{at.step}", written.getvalue().encode(), "csv")

    def log_text(self, name: str, text: str, at: At) -> None:
        """Append to the series ``texts/<name>``."""
        self._append(f"texts/{name}", text, at)

    def log_histogram(
        self, name: str, counts: Sequence[float], bin_edges: Sequence[float], at: At
    ) -> None:
        """Upload a histogram as the file ``histograms/<name>/<step>`` of JSON."""
        histogram = {
            "counts": [float(count) for count in counts],
            "bin_edges": [float(edge) for edge in bin_edges],
        }
        data = json.dumps(histogram).encode()
        self._upload(f"histograms/{name}/{at.step}", data, "json")

    def log_artifact(
        self,
        name: str,
        path: pathlib.Path,
        *,
        kind: str,
        metadata: Mapping[str, Any],
        artifact_path: str | None,
    ) -> None:
        """Keep a copy of a file or a folder, as ``artifacts/<kind>/<name>``."""
        where = self.rule.adapt(f"artifacts/{artifact_path or kind}/{name}")
        files = self._free(f"{where}/files")
        place = self._folder / "artifacts" / str(self.seq or time.time_ns())
        # Neptune notes the path, and reads it when it uploads.
        if path.is_dir():
            copy = place / path.name
            shutil.copytree(path, copy, dirs_exist_ok=True)
            self._run[files].upload_files(str(copy))
        else:
            place.mkdir(parents=True, exist_ok=True)
            copy = pathlib.Path(shutil.copy2(path, place))
            self._run[files].upload(str(copy))
        self._assign(f"{where}/metadata", flatten(metadata))

    @property
    def native(self) -> Any:
        """The ``neptune.Run``; None where no run is open."""
        return self._run

    # -- inside --------------------------------------------------------------------

    def _keep(self, seq: int) -> None:
        self._run.wait(disk_only=True)
        if seq > self._noted:
            self._noted = seq
            write_seq(self._note, seq)

    def _append(self, name: str, value: Any, at: At, **options: Any) -> None:
        series = self._run[self._free(name)]
        series.append(value, step=at.step, timestamp=at.time_s, **options)

    def _assign(self, level: str, values: Mapping[str, Any]) -> None:
        from neptune.utils import stringify_unsupported

        for name, value in values.items():
            path = self._free(self.rule.adapt(f"{level}/{name}"))
            plain = thaw(value)
            # Neptune has no lists, and would skip what is not finite.
            is_odd = isinstance(plain, float) and not math.isfinite(plain)
            if is_odd or isinstance(plain, list):
                plain = str(plain)
            self._run[path] = stringify_unsupported(plain)

    def _upload(self, name: str, data: bytes, extension: str) -> None:
        self._run[self._free(name)].upload(self._file(data, extension))

    def _file(self, data: bytes, extension: str) -> Any:
        from neptune.types import File

        return File.from_content(data, extension=extension)

    def _free(self, name: str) -> str:
        """Return a path that is not a level of the tree, nor below a leaf of it.

        One that has to give way has a character escaped, as `rule` does it.
        """
        path = self._paths.get(name)
        if path is None:
            path, leaves = name, self._paths.values()
            if path in self._levels:
                path = f"{path[:-1]}_x{ord(path[-1]):x}_"
            elif any(level in leaves for level in _levels(path)):
                path = path.replace("/", "_x2f_")
            self._paths[name] = path
            self._levels.update(_levels(path))
        return path


def _levels(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
