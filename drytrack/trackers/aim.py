"""Tracker that writes to an Aim repository."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import itertools
import json
import os
import pathlib
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from drytrack.core._atomic import replace_file
from drytrack.trackers._backend import (
    At,
    Backend,
    MediaFile,
    RunInfo,
    import_backend,
)
from drytrack.trackers._name_rule import NameRule
from drytrack.trackers._run_info import thaw

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["Aim"]

MAX_BINS = 512
"""Aim's limit for a distribution."""

OPEN_TIMEOUT_S = 30.0
"""How long another process may take to make the repository."""

MEMORY_S = 1.0
"""Longer than Aim remembers which runs a repository had."""

HASHES = "drytrack"
"""The folder of a local repository that says which run is whose: uuid → hash."""

_opening = threading.Lock()


class Aim(Backend):
    """Writes the run to an Aim repository, by default ``<par_dir>/aim``.

    Aim keeps one value for each step of a metric and context: what comes again
    after a crash takes the place of itself, and what is not newer than the run's
    ``drytrack.seq`` is not written again. A run that is resumed or replayed goes
    on under its hash. Contexts are Aim's own.

    Aim reads a run once it is in its index, which ``aim up`` and ``aim storage
    reindex`` bring up to date.

    Args:
        repo: The repository: a path, or the address of an Aim server
            (``aim://…``).
        par_dir: Where to make one, by default the experiment's folder.
        artifacts_uri: Where artifacts go, by default to the folder ``artifacts``
            of a local repository.
        **options: Of ``aim.Run``; its own system figures, terminal logs and
            parameters are off unless they are asked for here.
    """

    folder_name = "aim"
    keeps_context: ClassVar[bool] = True
    notify = Backend.notify.extend()
    # Two underscores are the mark of Aim's own series.
    rule = NameRule(refused=r"^_(?=_)")

    _run: Any = None

    def __init__(
        self,
        repo: str | os.PathLike[str] | None = None,
        par_dir: str | os.PathLike[str] | None = None,
        *,
        artifacts_uri: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(par_dir)
        self._repo = repo
        self._artifacts_uri = artifacts_uri
        self._options = {
            "system_tracking_interval": None,
            "capture_terminal_logs": False,
            "log_system_params": False,
            **options,
        }

    # -- the run -------------------------------------------------------------------

    def open(self, info: RunInfo) -> None:
        """Begin the run, or go on in it."""
        self._run = None
        aim = import_backend("aim", extra="aim", tracker="Aim")
        repo = os.fspath(
            self._repo or (self.par_dir or info.par_dir) / self.folder_name
        )
        folder = None if "://" in repo else pathlib.Path(repo).absolute()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        options = {"repo": repo, "experiment": info.experiment, **self._options}
        self._run = self._find_run(aim, folder, info.uuid, options)
        if self._run is None:
            self._run = _open(aim, None, options)
        self.state["hash"] = self._run.hash
        if folder is not None and info.uuid is not None:
            (folder / HASHES).mkdir(exist_ok=True)
            replace_file(folder / HASHES / info.uuid, self._run.hash.encode())
        _watch_forks()
        self._told = int(self._run.get(("drytrack", "seq"), 0))
        self._run.name = info.run_id
        if info.description:
            self._run.description = info.description
        for tag in set(info.tags) - set(self._run.tags):
            self._run.add_tag(tag)
        uri = self._artifacts_uri
        if uri is None and folder is not None:
            # Aim takes what follows for a path as it is: no %20 for a space.
            uri = f"file://{(folder / 'artifacts').as_posix()}"
        if uri is not None:
            self._run.set_artifacts_uri(uri)
        self._can_take_artifacts = uri is not None
        self._run["drytrack"] = {
            "run_id": info.run_id,
            "uuid": info.uuid,
            "attempt": info.attempt,
            "seq": self._told,
        }

    def last_seq(self) -> int | None:
        """Return the sequence number that was written with the last flush."""
        return self._told

    def flush(self) -> None:
        """Write how far the run goes."""
        if self._run is not None and self.taken_seq > self._told:
            self._told = self.taken_seq
            self._run["drytrack", "seq"] = self._told

    def finish(self, status: str, error: Mapping[str, str] | None) -> None:
        """Say how it ended, and close the run."""
        if self._run is None:
            return
        self.flush()
        run, self._run = self._run, None
        run["status"] = status
        if error is not None:
            run["error"] = dict(error)
        run.close()

    # -- what it takes -------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, float], at: At) -> None:
        """Write each value at its step."""
        for name, value in metrics.items():
            self._track(name, value, at)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Add to the parameters ``hparams``."""
        for name, value in params.items():
            self._run.set(("hparams", str(name)), thaw(value), strict=False)

    def log_summary(self, summary: Mapping[str, Any]) -> None:
        """Add to the parameters ``summary``."""
        for name, value in summary.items():
            self._run.set(("summary", str(name)), thaw(value), strict=False)

    def log_image(
        self, name: str, image: MediaFile, at: At, caption: str | None
    ) -> None:
        """Write an image."""
        if image.format == "svg":
            self._pass_over("svg images")
            return
        import aim
        from PIL import Image

        with Image.open(io.BytesIO(image.data)) as picture:
            self._track(name, aim.Image(picture, caption=caption or ""), at)

    def log_figure(
        self, name: str, figure: MediaFile, at: At, caption: str | None
    ) -> None:
        """Write a figure: as an image, or as plotly's own."""
        if figure.format != "plotly":
            self.log_image(name, figure, at, caption)
            return
        import aim

        plotly = import_backend("plotly.io", extra="plot", tracker="Aim")
        self._track(name, aim.Figure(plotly.from_json(figure.data.decode())), at)

    def log_text(self, name: str, text: str, at: At) -> None:
        """Write a text."""
        import aim

        self._track(name, aim.Text(text), at)

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], at: At
    ) -> None:
        """Write a table as a text of JSON, one line for a row."""
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
        self.log_text(name, "\n".join(lines), at)

    def log_histogram(
        self, name: str, counts: Sequence[float], bin_edges: Sequence[float], at: At
    ) -> None:
        """Write a distribution; its bins are made equally wide, as Aim wants them."""
        import aim

        even = _rebin(counts, bin_edges)
        value = aim.Distribution.from_histogram(even, (bin_edges[0], bin_edges[-1]))
        self._track(name, value, at)

    def log_artifact(
        self,
        name: str,
        path: pathlib.Path,
        *,
        kind: str,
        metadata: Mapping[str, Any],
        artifact_path: str | None,
    ) -> None:
        """Copy a file or a folder to where artifacts go."""
        if not self._can_take_artifacts:
            self._pass_over("artifacts without an artifacts_uri")
            return
        within = "/".join(filter(None, (artifact_path, name)))
        if path.is_dir():
            self._run.log_artifacts(str(path), within, block=True)
        else:
            self._run.log_artifact(str(path), f"{within}/{path.name}", block=True)
        about = {"kind": kind, **thaw(metadata)}
        self._run.set(("artifacts", name), about, strict=False)

    @property
    def native(self) -> Any:
        """The ``aim.Run``; None where no run is open."""
        return self._run

    # -- inside --------------------------------------------------------------------

    def _find_run(
        self,
        aim: ModuleType,
        folder: pathlib.Path | None,
        uuid: str | None,
        options: Mapping[str, Any],
    ) -> Any:
        """Open the run that is there already; return None where there is none."""
        from aim.sdk.errors import MissingRunError

        known = self.state.get("hash")
        if folder is not None and uuid is not None:
            # What is known may be of another repository.
            with contextlib.suppress(FileNotFoundError):  # a run that is new here
                known = (folder / HASHES / uuid).read_text(encoding="ascii")
        if known is None:
            return None
        deadline = time.monotonic() + MEMORY_S
        while True:
            try:
                # Of a process that was killed nobody takes back the lock.
                return _open(aim, known, {**options, "force_resume": True})
            except MissingRunError:
                if time.monotonic() > deadline:
                    return None
            time.sleep(0.1)

    def _track(self, name: str, value: Any, at: At) -> None:
        self._run.track(
            value,
            name=name,
            step=at.step,
            epoch=at.step if at.axis == "epoch" else None,
            context=dict(at.context),
        )


def _open(aim: ModuleType, known: str | None, options: Mapping[str, Any]) -> Any:
    """Open a run; of several that would make the repository, let one do it."""
    deadline = time.monotonic() + OPEN_TIMEOUT_S
    while True:
        try:
            with _opening:
                return aim.Run(known, **options)
        except RuntimeError as err:
            # So it calls a repository that is being made: out of date.
            if str(err) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _disown_in_child() -> None:
    """Keep a forked child from closing, when it ends, what its parent has open.

    It would wait for ever for threads that it has not got.
    """
    cleanup = sys.modules.get("aim.ext.cleanup")
    if cleanup is None:
        return
    cleaner = cleanup.AutoClean
    for _, finalizer in list(cleaner._finalizers.values()):
        finalizer.detach()
    cleaner._finalizers.clear()
    atexit.unregister(cleaner.cleanup)
    cleaner._registered_with_atexit = False  # for runs of the child's own


@functools.cache
def _watch_forks() -> None:
    # Once for the process, which never forgets what it is told here.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_disown_in_child)


def _rebin(counts: Sequence[float], edges: Sequence[float]) -> list[float]:
    """Spread counts over bins of equal width, as if each bin were filled evenly."""
    n_bins = min(len(counts), MAX_BINS)
    width = (edges[-1] - edges[0]) / n_bins
    if n_bins == len(counts) and all(
        abs(right - left - width) <= 1e-6 * width
        for left, right in itertools.pairwise(edges)
    ):
        return list(counts)
    even = [0.0] * n_bins
    for count, (left, right) in zip(counts, itertools.pairwise(edges), strict=True):
        first = int((left - edges[0]) / width)
        for number in range(min(first, n_bins - 1), n_bins):
            low = edges[0] + number * width
            shared = min(right, low + width) - max(left, low)
            if shared <= 0 and low >= right:
                break
            even[number] += count * max(0.0, shared) / (right - left)
    return even
