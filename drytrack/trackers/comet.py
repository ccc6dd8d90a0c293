"""Tracker that logs to Comet, online or into its offline archives."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import pathlib
import sys
import threading
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
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
from drytrack.trackers._name_rule import NameRule
from drytrack.trackers._offline_note import find_note, read_seq, write_seq
from drytrack.trackers._run_info import thaw
from drytrack.trackers._vendor_process import environment, same_excepthook

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["Comet"]

QUIET = {
    "COMET_DISABLE_AUTO_LOGGING": "1",  # patches other libraries
    "COMET_ERROR_TRACKING_ENABLE": "0",  # sends errors to a third party
    "COMET_LOGGING_CONSOLE": "WARNING",
}
"""How Comet is imported, where the environment does not say otherwise."""

_lock = threading.Lock()
"""Comet knows one experiment in a process, and ends it when there is a second."""

_logger = logging.getLogger("drytrack")


class Comet(Backend):
    """Logs the run to Comet, or keeps it for ``comet upload``.

    Offline there is one archive for each attempt of a run, in
    ``<par_dir>/comet``, written when it ends; all of them have the run's key, and
    the first that is uploaded creates the experiment that the others add to. What
    a killed process had not archived goes into the next archive, so each value is
    in one archive once. Online, what a killed process sent since the last flush
    is sent again.

    Comet's own collection of code, command line, output and environment is off,
    unless an option turns it on.

    Args:
        par_dir: Where the archives are, by default the experiment's folder.
        api_key: The key for the server, by default what Comet finds itself.
        online: Whether to send; by default if there is a key.
        project_name: Name over there, by default the experiment's.
        workspace: The workspace, by default the user's.
        **options: Of ``comet_ml.ExperimentConfig``.
    """

    name = "comet"
    folder_name = "comet"
    notify = Backend.notify.extend()
    rule = NameRule(max_length=100)

    _experiment: Any = None

    def __init__(
        self,
        par_dir: str | os.PathLike[str] | None = None,
        *,
        api_key: str | None = None,
        online: bool | None = None,
        project_name: str | None = None,
        workspace: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(par_dir)
        self._api_key = api_key
        self._online = online
        self._project_name = project_name
        self._workspace = workspace
        self._options = {
            "log_code": False,
            "log_graph": False,
            "parse_args": False,
            "log_git_metadata": False,
            "log_git_patch": False,
            "log_env_details": False,
            "auto_output_logging": False,
            "auto_param_logging": False,
            "auto_metric_logging": False,
            "auto_log_co2": False,
            "display_summary_level": 0,
            **options,
        }

    # -- the run -------------------------------------------------------------------

    def open(self, info: RunInfo) -> None:
        """Create the experiment, or go on with it."""
        self._experiment, self._archive = None, None
        with _lock:
            comet = _import_comet()
        key = self.state.get("key") or (info.uuid or str(uuid.uuid4())).replace("-", "")
        api_key = comet.get_api_key(self._api_key, comet.get_config())
        self._is_online = bool(api_key) if self._online is None else self._online
        options = dict(self._options)
        self._folder = (self.par_dir or info.par_dir) / self.folder_name
        self._note = find_note(self._folder, key)
        if not self._is_online:
            self._folder.mkdir(parents=True, exist_ok=True)
            options["offline_directory"] = str(self._folder)
        self._archived = read_seq(self._note)
        with _lock, _alone(comet):
            before = _archives(self._folder, key)
            for path in filter(_is_empty, before):
                path.unlink()  # left by a process that was killed
            self._experiment = comet.start(
                api_key=api_key if self._is_online else None,
                workspace=self._workspace,
                project_name=self._project_name or info.experiment,
                experiment_key=key,
                mode="get_or_create",
                online=self._is_online,
                experiment_config=comet.ExperimentConfig(**options),
            )
            if not self._is_online:
                (self._archive,) = _archives(self._folder, key) - before
        if not self._experiment.alive:
            self._experiment = None
            msg = "Comet did not open the experiment. Its log says why."
            raise BackendError(msg)
        self.state["key"] = key
        self._describe(info)

    def last_seq(self) -> int | None:
        """Return the newest sequence number in an archive; None online."""
        return None if self._is_online else self._archived

    def flush(self) -> None:
        """Wait until what was logged is sent; offline that has time until the end."""
        if self._experiment is None or not self._is_online:
            return
        if not self._experiment.flush():
            msg = "Comet has not sent everything. It goes on trying."
            raise BackendError(msg)

    def finish(self, status: str, error: Mapping[str, str] | None) -> None:
        """End the experiment; offline this writes the archive."""
        experiment = self._experiment
        if experiment is None:
            return
        if not experiment.ended:
            experiment.log_other("status", status)
            for part, text in (error or {}).items():
                experiment.log_other(f"error.{part}", text)
            experiment.end()
        if not self._is_online:
            self._check_archive(experiment)
        self._experiment = None

    # -- what it takes -------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, float], at: At) -> None:
        """Log metrics with their step, and their epoch if they have one."""
        epoch = at.step if at.axis == "epoch" else None
        self._experiment.log_metrics(dict(metrics), step=at.step, epoch=epoch)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters; the newest value of a name counts."""
        self._experiment.log_parameters(
            {self.rule.adapt(name): value for name, value in flatten(params).items()}
        )

    def log_summary(self, summary: Mapping[str, Any]) -> None:
        """Log values as ``summary/<name>`` among "other"."""
        for name, value in flatten(summary).items():
            self._experiment.log_other(self.rule.adapt(f"summary/{name}"), value)

    def log_image(
        self, name: str, image: MediaFile, at: At, caption: str | None
    ) -> None:
        """Log an image."""
        self._experiment.log_image(
            io.BytesIO(image.data),
            f"{name}.{image.format}",
            image_format=image.format,
            step=at.step,
            metadata={"caption": caption} if caption else None,
        )

    def log_figure(
        self, name: str, figure: MediaFile, at: At, caption: str | None
    ) -> None:
        """Log a picture as an image, a figure of plotly as its JSON."""
        if figure.format != "plotly":
            self.log_image(name, figure, at, caption)
            return
        text, path = figure.data.decode(), f"{name}/{at.step}.json"
        self._experiment.log_asset_data(text, path, step=at.step)

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], at: At
    ) -> None:
        """Log a table as ``<name>/<step>.csv``."""
        self._experiment.log_table(
            f"{name}/{at.step}.csv",
            [list(row) for row in rows],
            headers=list(columns),
        )

    def log_text(self, name: str, text: str, at: At) -> None:
        """Log a text, its name in its metadata."""
        self._experiment.log_text(text, step=at.step, metadata={"name": name})

    def log_histogram(
        self, name: str, counts: Sequence[float], bin_edges: Sequence[float], at: At
    ) -> None:
        """Log a histogram; Comet has bins of its own, which take the middles."""
        import comet_ml

        middles = [(left + right) / 2 for left, right in itertools.pairwise(bin_edges)]
        histogram = comet_ml.Histogram()
        histogram.add(middles, counts=list(counts))
        self._experiment.log_histogram_3d(histogram, name, step=at.step)

    def log_artifact(
        self,
        name: str,
        path: pathlib.Path,
        *,
        kind: str,
        metadata: Mapping[str, Any],
        artifact_path: str | None,
    ) -> None:
        """Log a file, or the files of a folder, as assets."""
        about = {**thaw(metadata), "name": name, "kind": kind}
        where = artifact_path or f"{kind}/{name}"
        for file, within in _files(path):
            self._experiment.log_asset(
                str(file), file_name=f"{where}/{within}", metadata=about
            )

    def log_model(
        self,
        name: str,
        path: pathlib.Path,
        *,
        metadata: Mapping[str, Any],
        artifact_path: str | None,
    ) -> None:
        """Log a file, or the files of a folder, as a model of the experiment."""
        for file, within in _files(path):
            self._experiment.log_model(
                name, str(file), file_name=within, metadata=thaw(metadata)
            )

    @property
    def native(self) -> Any:
        """The experiment of ``comet_ml``; None where no run is open."""
        return self._experiment

    @property
    def url(self) -> str | None:
        """The page of the experiment; None offline."""
        if self._experiment is None or not self._is_online:
            return None
        return str(self._experiment.url)

    # -- inside --------------------------------------------------------------------

    def _describe(self, info: RunInfo) -> None:
        self._experiment.set_name(info.run_id)
        if info.tags:
            self._experiment.add_tags(list(info.tags))
        known = {
            "description": info.description,
            "drytrack.uuid": info.uuid,
            "drytrack.parent_uuid": info.parent_uuid,
            "drytrack.attempt": info.attempt,
        }
        for key, value in known.items():
            if value is not None:
                self._experiment.log_other(key, value)

    def _check_archive(self, experiment: Any) -> None:
        """Note how far the archive goes, if it is where it should be, and whole."""
        assert self._archive is not None  # found when it was opened
        if not self._archive.exists() or _is_empty(self._archive):
            msg = (
                f"Comet has not written {self._archive}. What was to be in it is in "
                f"{experiment.offline_directory}, or comes again when the run is "
                f"resumed."
            )
            raise BackendError(msg)
        if self.seq is not None and self.seq <= self._archived:
            self._archive.unlink()  # of a replay that brought nothing new
            return
        if experiment.customer_error_reported:
            msg = (
                f"Comet has left something out of {self._archive}: "
                f"{experiment.customer_error_message} The run's journal has it."
            )
            raise BackendError(msg)
        if self.seq is not None:
            write_seq(self._note, self.seq)
        _logger.info("Upload the run to Comet with: comet upload %s", self._archive)


def _import_comet() -> ModuleType:
    """Import Comet without what it does to the process by default."""
    if "comet_ml" in sys.modules:
        return sys.modules["comet_ml"]
    unset = {name: QUIET[name] for name in QUIET if name not in os.environ}
    with environment(unset), same_excepthook():
        return import_backend("comet_ml", extra="comet", tracker="Comet")


@contextlib.contextmanager
def _alone(comet: ModuleType) -> Iterator[None]:
    """Hide the experiment that Comet takes for the only one, and put it back."""
    from comet_ml.config import set_global_experiment

    previous = comet.get_global_experiment()
    set_global_experiment(None)
    try:
        yield
    finally:
        if previous is not None and not previous.ended:
            set_global_experiment(previous)


def _archives(folder: pathlib.Path, key: str) -> set[pathlib.Path]:
    return set(folder.glob(f"{key}*.zip"))


def _is_empty(archive: pathlib.Path) -> bool:
    try:
        with zipfile.ZipFile(archive) as opened:
            return not opened.namelist()
    except zipfile.BadZipFile:
        return True


def _files(path: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
    """Yield the files of a folder, or the one file, with their names below it."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield file, file.relative_to(path).as_posix()
    else:
        path.stat()  # Comet would only log that there is none
        yield path, path.name
