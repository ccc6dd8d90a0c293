"""Tracker that logs to ClearML, online or into its offline sessions."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import math
import os
import pathlib
import socket
import threading
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Mapping, Sequence
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
from drytrack.trackers._run_info import identify, thaw
from drytrack.trackers._vendor_process import environment, same_excepthook

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["ClearML"]

PATCHES = (
    "catboost",
    "fastai",
    "gradio",
    "hydra",
    "joblib",
    "lightgbm",
    "matplotlib",
    "megengine",
    "pytorch",
    "scikit",
    "tensorboard",
    "tensorflow",
    "tfdefines",
    "xgboost",
)
"""What ClearML patches unless it is told not to, one by one."""

END = "drytrack/seq"
"""The last value of a session, which says that it has all before it."""

WAIT_S = 20.0
"""How long a run waits for the one that has ClearML's only task."""

KNOCK_S = 10.0
"""How long a server may take to answer at all."""

_only_task = threading.Lock()
"""Held while a run has ClearML's task: there is one in a process."""

_logger = logging.getLogger("drytrack")


class ClearML(Backend):
    """Logs the run to ClearML, or keeps it for ``Task.import_offline_session``.

    ClearML has one task in a process. A second run at the same time gets its own
    when the first has ended, and catches up then.

    Offline there is one session for each attempt of a run, a zip file below
    ``<par_dir>/clearml/offline``, written when it ends. What a killed process had
    not ended comes again in the next session, so each value is in one zip file
    once. Online, what a killed process sent since the last flush is sent again.

    ClearML's own collection of code, packages, arguments, output and machine
    figures, and its patches of other libraries, are off unless an option turns
    them on.

    Args:
        par_dir: Where the sessions are, by default the experiment's folder.
        offline: Whether to keep sessions; by default where ClearML has no
            credentials. It then holds for the whole process.
        project_name: Name over there, by default the experiment's.
        **options: Of ``clearml.Task.init``.
    """

    name = "clearml"
    folder_name = "clearml"
    notify = Backend.notify.extend()
    # Names become paths of files: no empty, "." or ".." part.
    rule = NameRule(refused=r"^/|(?<=/)/|/$|^\.{1,2}(?=/|$)|(?<=/)\.{1,2}(?=/|$)")

    _task: Any = None
    _session: pathlib.Path | None = None

    def __init__(
        self,
        par_dir: str | os.PathLike[str] | None = None,
        *,
        offline: bool | None = None,
        project_name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(par_dir)
        self._offline = offline
        self._project_name = project_name
        self._options = {
            "auto_connect_arg_parser": False,
            "auto_connect_frameworks": {
                "detect_repository": False,
                **dict.fromkeys(PATCHES, False),
            },
            "auto_connect_streams": False,
            "auto_resource_monitoring": False,
            **options,
        }

    # -- the run -------------------------------------------------------------------

    def open(self, info: RunInfo) -> None:
        """Create the task, or go on with it."""
        self._task, self._session = None, None
        clearml = import_backend("clearml", extra="clearml", tracker="ClearML")
        is_offline = self._offline
        self._is_offline = not _has_credentials() if is_offline is None else is_offline
        self._folder = (self.par_dir or info.par_dir) / self.folder_name
        self._note = find_note(self._folder, info.uuid or info.run_id)
        self._ended = read_seq(self._note)
        if not _only_task.acquire(timeout=WAIT_S):
            msg = (
                "ClearML has one task in a process, and another run has it. This run "
                "gets one when that has ended; its journal keeps what is published."
            )
            raise BackendError(msg)
        try:
            self._task = self._create_task(clearml, info)
            self._describe(info)
        except BaseException:
            self._close()
            raise

    def last_seq(self) -> int | None:
        """Return the newest sequence number in an ended session; None online."""
        return self._ended if self._is_offline else None

    def flush(self) -> None:
        """Wait until what was logged is sent; offline that has time until the end."""
        if self._task is not None and not self._is_offline:
            self._task.flush(wait_for_uploads=True)

    def finish(self, status: str, error: Mapping[str, str] | None) -> None:
        """Close the task; offline this writes the zip file."""
        task = self._task
        if task is not None:
            try:
                if status == "failed":
                    task.mark_failed(status_message=(error or {}).get("message"))
                elif status != "completed":
                    task.mark_stopped(status_message=status)
                self._set("drytrack", {"status": status})
                self._set("error", error or {})
                task.get_logger().report_single_value(END, self.seq or 0)
            finally:
                self._close()
        if self._session is not None:
            self._check_session(self._session)
            self._session = None

    # -- what it takes -------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, float], at: At) -> None:
        """Report scalars; what is not finite goes to the log, ClearML makes it 0."""
        logger = self._task.get_logger()
        for name, value in metrics.items():
            if math.isfinite(value):
                title = name.rpartition("/")[2]
                logger.report_scalar(title, name, value, at.step)
            else:
                text = f"{name} is {value} at {at.axis} {at.step}"
                logger.report_text(text, print_console=False)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Set parameters of the section "General"; the newest value counts."""
        self._set("General", flatten(params))

    def log_summary(self, summary: Mapping[str, Any]) -> None:
        """Report numbers as single values, others as parameters "Summary"."""
        for name, value in flatten(summary).items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                self._task.get_logger().report_single_value(name, value)
            else:
                self._set("Summary", {name: value})

    def log_image(
        self, name: str, image: MediaFile, at: At, caption: str | None
    ) -> None:
        """Report an image as a debug sample."""
        self._report_file(name, image.data, f".{image.format}", at)
        if caption:
            text = f"{name} at {at.axis} {at.step}: {caption}"
            self._task.get_logger().report_text(text, print_console=False)

    def log_figure(
        self, name: str, figure: MediaFile, at: At, caption: str | None
    ) -> None:
        """Report a picture as an image, a figure of plotly as a plot."""
        if figure.format == "plotly":
            self._report_plot(name, json.loads(figure.data), at)
        else:
            self.log_image(name, figure, at, caption)

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], at: At
    ) -> None:
        """Report a table."""
        self._task.get_logger().report_table(
            name.rpartition("/")[2],
            name,
            at.step,
            table_plot=[list(columns), *(list(row) for row in rows)],
        )

    def log_text(self, name: str, text: str, at: At) -> None:
        """Report a text as a debug sample."""
        self._report_file(name, text.encode("utf-8", "replace"), ".txt", at)

    def log_histogram(
        self, name: str, counts: Sequence[float], bin_edges: Sequence[float], at: At
    ) -> None:
        """Report a histogram as a plot of its bins."""
        bins = list(itertools.pairwise(bin_edges))
        bars = {
            "type": "bar",
            "x": [(left + right) / 2 for left, right in bins],
            "width": [float(right - left) for left, right in bins],
            "y": [float(count) for count in counts],
        }
        self._report_plot(name, {"data": [bars], "layout": {"bargap": 0}}, at)

    def log_artifact(
        self,
        name: str,
        path: pathlib.Path,
        *,
        kind: str,
        metadata: Mapping[str, Any],
        artifact_path: str | None,
    ) -> None:
        """Upload a file, or a folder as a zip file, and wait until it is there."""
        path.stat()  # of a path that does not exist ClearML keeps the name alone
        self._task.upload_artifact(
            self.rule.adapt(f"{artifact_path or kind}/{name}"),
            str(path),
            metadata={"kind": kind, **{key: str(metadata[key]) for key in metadata}},
            wait_on_upload=True,
        )

    @property
    def native(self) -> Any:
        """The ``clearml.Task``; None where no run is open."""
        return self._task

    @property
    def url(self) -> str | None:
        """The page of the task; None offline."""
        if self._task is None or self._is_offline:
            return None
        return str(self._task.get_output_log_web_page())

    # -- inside --------------------------------------------------------------------

    def _create_task(self, clearml: ModuleType, info: RunInfo) -> Any:
        if clearml.Task.current_task() is not None:
            msg = (
                "ClearML has one task in a process, and the script has made one. "
                "Close it before the run, or leave it to the tracker."
            )
            raise BackendError(msg)
        options = {
            "project_name": self._project_name or info.experiment,
            "task_name": info.run_id,
            "reuse_last_task_id": False,
            "tags": list(info.tags),
            **self._options,
        }
        known = self.state.get("task_id")
        if self._is_offline:
            self._folder.mkdir(parents=True, exist_ok=True)
            clearml.Task.set_offline(True)
        else:
            _knock()
            if known is not None:
                options["continue_last_task"] = known
        # Otherwise it forks the training process, in the middle of its threads, for
        # a reporter that then takes 10 s to end.
        clearml.Task._report_subprocess_enabled = False
        variables = {"CLEARML_CACHE_DIR": str(self._folder)} if self._is_offline else {}
        with environment(variables), same_excepthook():
            task = clearml.Task.init(**options)
            if self._is_offline:
                # Decided when it is first asked for.
                self._session = pathlib.Path(f"{task.get_offline_mode_folder()}.zip")
        if not self._is_offline:
            if known is not None:
                task.set_initial_iteration(0)  # steps are those of the run
            self.state["task_id"] = task.id
        return task

    def _describe(self, info: RunInfo) -> None:
        if info.description:
            self._task.set_comment(info.description)
        self._set("drytrack", identify(info))

    def _set(self, section: str, params: Mapping[str, Any]) -> None:
        if params:
            self._task.update_parameters(
                {f"{section}/{name}": thaw(value) for name, value in params.items()}
            )

    def _report_file(self, name: str, data: bytes, suffix: str, at: At) -> None:
        self._task.get_logger().report_media(
            name.rpartition("/")[2],
            name,
            at.step,
            stream=io.BytesIO(data),
            file_extension=suffix,
        )

    def _report_plot(self, name: str, figure: dict[str, Any], at: At) -> None:
        title = name.rpartition("/")[2]
        self._task.get_logger().report_plotly(title, name, figure, at.step)

    def _close(self) -> None:
        task, self._task = self._task, None
        try:
            if task is not None:
                task.close()
        finally:
            _only_task.release()

    def _check_session(self, session: pathlib.Path) -> None:
        """Note how far the session goes, if ClearML has written all of it."""
        if not _is_whole(session):
            with contextlib.suppress(OSError):  # there may be none at all
                session.unlink()
            msg = (
                f"ClearML has not written all of {session}. What was to be in it comes "
                f"again when the run is resumed."
            )
            raise BackendError(msg)
        if self.seq is not None and self.seq <= self._ended:
            session.unlink()  # of a replay that brought nothing new
            return
        if self.seq is not None:
            write_seq(self._note, self.seq)
        _logger.info("Import the run with Task.import_offline_session(%r)", session)


def _is_whole(session: pathlib.Path) -> bool:
    """Return whether the thread of ClearML that writes has lived to the end."""
    try:
        with (
            zipfile.ZipFile(session) as opened,
            opened.open("metrics.jsonl") as lines,
        ):
            return any(END.encode() in line for line in lines)
    except (OSError, KeyError, zipfile.BadZipFile):
        return False


def _has_credentials() -> bool:
    configured = os.environ.get("CLEARML_CONFIG_FILE") or "~/clearml.conf"
    return (
        "CLEARML_API_ACCESS_KEY" in os.environ
        or pathlib.Path(configured).expanduser().exists()
    )


def _knock() -> None:
    """Raise if no server is there: ClearML would not come back with the news."""
    if urllib.request.getproxies():
        return
    from clearml.backend_api import Session

    address = urllib.parse.urlsplit(Session.get_api_server_host())
    port = address.port or (443 if address.scheme == "https" else 80)
    socket.create_connection((address.hostname or "", port), KNOCK_S).close()
