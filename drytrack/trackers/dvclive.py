"""Tracker that writes what DVC shows: metrics, plots, parameters and images."""

from __future__ import annotations

import contextlib
import csv
import io
import pathlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from drytrack.trackers._backend import (
    At,
    Backend,
    MediaFile,
    RunInfo,
    import_backend,
)
from drytrack.trackers._name_rule import NameRule
from drytrack.trackers._offline_note import read_seq, write_seq
from drytrack.trackers._run_info import thaw

if TYPE_CHECKING:
    import os

__all__ = ["DVCLive"]

NOTE = "drytrack.json"
"""Says which run a folder belongs to, and how far its files go."""

_opening = threading.Lock()

_SUFFIXES = {"png": "png", "jpeg": "jpg", "gif": "gif", "webp": "png", "bmp": "png"}


class DVCLive(Backend):
    """Writes the run with DVCLive to ``<par_dir>/dvclive/<experiment>/…``.

    Nothing else is written: no ``dvc.yaml``, no DVC experiment, and no DVC
    repository where there is a Git one, unless the options ask for them.

    How far the files go is noted whenever the tracker is flushed; what a killed
    process wrote after that is recognised by its step and value. So nothing is
    written twice, except the same value that an attempt has repeated by chance,
    which is left out.

    Args:
        par_dir: Where to write, by default the experiment's folder.
        **options: Of ``dvclive.Live``: ``dvcyaml``, ``save_dvc_exp``, ``report``,
            ``cache_images`` and so on.
    """

    name = "dvclive"
    folder_name = "dvclive"
    notify = Backend.notify.extend()
    # A name is a path there, on Windows as well.
    rule = NameRule(
        r"[A-Za-z0-9_. \-/]",
        refused=r"^/|(?<=/)/|/$|[. ](?=/|$)",
        max_length=200,
    )

    _live: Any = None

    def __init__(
        self, par_dir: str | os.PathLike[str] | None = None, **options: Any
    ) -> None:
        super().__init__(par_dir)
        self._options = {"dvcyaml": None, "save_dvc_exp": False, **options}

    # -- the run -------------------------------------------------------------------

    def open(self, info: RunInfo) -> None:
        """Begin the folder, or go on in it."""
        self._live = None
        dvclive = import_backend("dvclive", extra="dvclive", tracker="DVCLive")
        folder = self.run_dir
        self._note = folder / NOTE
        self._uuid = info.uuid
        self._noted = read_seq(self._note, info.uuid) if info.uuid else 0
        # Without `resume` DVCLive empties the folder.
        goes_on = info.resumed or self._noted > 0
        self._written: dict[str, dict[int, str]] = {}
        if goes_on:
            self._written = _read_metrics(folder / "plots" / "metrics")
        options = {"resume": goes_on, **self._options}
        if options["save_dvc_exp"]:
            self._live = dvclive.Live(str(folder), **options)
        else:
            with _making_no_repository():
                self._live = dvclive.Live(str(folder), **options)

    def last_seq(self) -> int | None:
        """Return the sequence number that was noted with the last flush."""
        return self._noted

    def flush(self) -> None:
        """Write the newest value of each metric, and note how far the files go."""
        if self._live is None:
            return
        self._live.make_summary()
        if self._uuid is not None and self.taken_seq > self._noted:
            self._noted = self.taken_seq
            write_seq(self._note, self._noted, self._uuid)

    def finish(self, status: str, error: Mapping[str, str] | None) -> None:
        """End it as DVCLive does: report, ``dvc.yaml``, experiment, as asked for."""
        if self._live is None:
            return
        self.flush()
        self._live.end()
        self._live = None

    # -- what it takes -------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, float], at: At) -> None:
        """Write a row to the file of each metric."""
        self._live.step = at.step
        for metric, value in self._unwritten(metrics):
            name = self._free_name(metric)
            # Perhaps by a process that was killed before it could note it.
            if self._written.get(name, {}).get(at.step) != str(value):
                self._live.log_metric(name, value)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Write parameters to ``params.yaml``."""
        self._live.log_params(thaw(params))

    def log_summary(self, summary: Mapping[str, Any]) -> None:
        """Write values beside the newest ones of the metrics."""
        self._live.summary.update(thaw(summary, odd_floats=False))  # JSON knows no NaN

    def log_image(
        self, name: str, image: MediaFile, at: At, caption: str | None
    ) -> None:
        """Write an image as ``<name>/<step>.png``, for which DVC has a slider."""
        suffix = _SUFFIXES.get(image.format)
        if suffix is None:
            self._pass_over(f"{image.format} images")
            return
        from PIL import Image

        self._live.step = at.step
        with Image.open(io.BytesIO(image.data)) as picture:
            self._live.log_image(f"{name}/{at.step}.{suffix}", picture)

    def log_histogram(
        self, name: str, counts: Sequence[float], bin_edges: Sequence[float], at: At
    ) -> None:
        """Write a histogram as a custom plot of its bins."""
        self._live.step = at.step
        self._live.log_plot(
            f"{name}/{at.step}",
            [
                {"bin": float(edge), "count": float(count)}
                for edge, count in zip(bin_edges, counts, strict=False)
            ],
            x="bin",
            y="count",
        )

    def log_artifact(
        self,
        name: str,
        path: pathlib.Path,
        *,
        kind: str,
        metadata: Mapping[str, Any],
        artifact_path: str | None,
    ) -> None:
        """Let DVC track a file or a folder, where there is a DVC repository."""
        if getattr(self._live, "_dvc_repo", None) is None:
            self._pass_over("artifacts without a DVC repository")
            return
        self._live.log_artifact(str(path), kind, name, meta=thaw(metadata), copy=True)

    @property
    def native(self) -> Any:
        """The ``dvclive.Live`` object; None where no run is open."""
        return self._live

    # -- inside --------------------------------------------------------------------

    def _free_name(self, name: str) -> str:
        """Return a name that is not a folder of another one, nor within one.

        DVCLive keeps the newest values as a tree, where ``loss`` and ``loss/x``
        exclude each other.
        """
        node: Any = self._live.summary
        parts = name.split("/")
        for part in parts[:-1]:
            node = node.get(part, {})
            if not isinstance(node, dict):
                return name.replace("/", "_x2f_")
        return f"{name}_x_" if isinstance(node.get(parts[-1]), dict) else name


@contextlib.contextmanager
def _making_no_repository() -> Iterator[None]:
    """Let DVCLive find a DVC repository, and not make one in a Git repository."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo
    from dvc.scm import SCMError
    from dvclive import live

    def find() -> Any:
        try:
            return Repo()
        except (NotDvcRepoError, SCMError):
            return None

    # There is no option for it.
    with _opening:
        own = live.get_dvc_repo
        live.get_dvc_repo = find
        try:
            yield
        finally:
            live.get_dvc_repo = own


def _read_metrics(folder: pathlib.Path) -> dict[str, dict[int, str]]:
    """Return the newest value at each step, as text, for each metric."""
    found: dict[str, dict[int, str]] = {}
    for path in folder.rglob("*.tsv"):
        name = path.relative_to(folder).with_suffix("").as_posix()
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file, delimiter="\t") if len(row) == 2]
        found[name] = {int(step): value for step, value in rows[1:]}
    return found
