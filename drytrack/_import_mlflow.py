"""Reading the store of MLflow, a folder or a database, by MLflow's own client."""

from __future__ import annotations

import contextlib
import heapq
import operator
import os
import pathlib
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

from drytrack._import_model import Attempt, ForeignRun, Timed, metric_event
from drytrack.core import log_events
from drytrack.core.exceptions import ConfigurationError
from drytrack.trackers._backend import import_backend

SOURCE = "mlflow"
PAGE = 1_000
ALLOW = "MLFLOW_ALLOW_FILE_STORE"
STATUSES = {"FINISHED": "completed", "FAILED": "failed"}
PREFIX = "mlflow."


def find_runs(place: str) -> Iterator[ForeignRun]:
    """Find the runs of a store.

    Args:
        place: A folder (``mlruns``), an SQLite file, or an address.

    Raises:
        MissingDependencyError: If MLflow is not installed.
        ConfigurationError: If it is no store.
    """
    mlflow = import_backend(
        "mlflow", extra="mlflow", tracker="Reading a store of MLflow"
    )
    address = _to_address(place)
    with _allow_folders():
        try:
            client = mlflow.MlflowClient(tracking_uri=address)
            experiments = _read_pages(client.search_experiments)
            for experiment in experiments:
                ids = [experiment.experiment_id]
                for run in _read_pages(client.search_runs, ids):
                    yield _make_run(client, address, experiment.name, run)
        except mlflow.exceptions.MlflowException as err:
            reason = " ".join(str(err).split())[:300]
            msg = f"MLflow cannot read {place}: {reason}."
            raise ConfigurationError(msg) from err


def _to_address(place: str) -> str:
    if "://" in place:
        return place
    path = pathlib.Path(place).absolute()
    if path.is_file():
        return f"sqlite:///{path.as_posix()}"
    if not path.is_dir():
        raise ConfigurationError(f"There is no folder or database {path}.")
    # MLflow would make a store of any folder.
    if (path / "mlruns").is_dir():
        path /= "mlruns"
    if not any(path.glob("*/meta.yaml")):
        msg = f"{path} is no store of MLflow. Name its mlruns folder, or its database."
        raise ConfigurationError(msg)
    return path.as_uri()


@contextlib.contextmanager
def _allow_folders() -> Iterator[None]:
    """Let MLflow read folders, which newer versions refuse unless told otherwise."""
    before = os.environ.get(ALLOW)
    os.environ[ALLOW] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[ALLOW]
        else:
            os.environ[ALLOW] = before


def _read_pages(search: Any, *arguments: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(*arguments, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _make_run(client: Any, address: str, experiment: str, run: Any) -> ForeignRun:
    info, data = run.info, run.data
    own = {n: v for n, v in data.tags.items() if n.startswith(PREFIX)}
    parent = own.get("mlflow.parentRunId")
    found = ForeignRun(
        "mlflow",
        place=_hide_password(address),
        key=info.run_id,
        experiment=experiment,
        run_id=info.run_id,
        attempts=[],
        name=info.run_name or own.get("mlflow.runName"),
        notes=own.get("mlflow.note.content", ""),
        tags=[f"{n}={v}" if v else n for n, v in data.tags.items() if n not in own],
        config={name: read_param(text) for name, text in sorted(data.params.items())},
        parent=(parent, parent) if parent else None,
    )
    environment = {
        "user": own.get("mlflow.user"),
        "command_line": [own["mlflow.source.name"]]
        if "mlflow.source.name" in own
        else None,
        "git": {"commit": own["mlflow.source.git.commit"]}
        if "mlflow.source.git.commit" in own
        else None,
    }
    found.attempts = [
        Attempt(
            _read_events(client, found, run),
            started=info.start_time / 1000,
            ended=info.end_time / 1000 if info.end_time else None,
            status=STATUSES.get(info.status, "interrupted"),
            environment={name: value for name, value in environment.items() if value},
        )
    ]
    return found


def _read_events(client: Any, found: ForeignRun, run: Any) -> Iterator[Timed]:
    """Read what was logged, in the order of time; one call is one event again."""
    histories = [
        sorted(
            client.get_metric_history(run.info.run_id, name),
            key=lambda metric: (metric.timestamp, metric.step),
        )
        for name in sorted(run.data.metrics)
    ]
    merged = heapq.merge(*histories, key=lambda m: (m.timestamp, m.step))
    values: dict[str, float] = {}
    place: tuple[int, int] | None = None
    for metric in merged:
        at = metric.timestamp, metric.step
        if values and (at != place or metric.key in values):
            assert place is not None  # set with the first value
            yield from _make_event(found, place, values)
            values = {}
        place = at
        values[metric.key] = metric.value
    if values and place is not None:
        yield from _make_event(found, place, values)
    yield from _read_artifacts(client, found, run)


def _make_event(
    found: ForeignRun, place: tuple[int, int], values: dict[str, float]
) -> Iterator[Timed]:
    timestamp, step = place
    event = metric_event(found, SOURCE, step, values)
    if event is not None:
        yield timestamp / 1000, event


def _read_artifacts(client: Any, found: ForeignRun, run: Any) -> Iterator[Timed]:
    """Return the artifacts that are files of this machine."""
    root = _local_path(run.info.artifact_uri)
    if root is None:
        found.leave_out("artifacts elsewhere")
        return
    ended = (run.info.end_time or run.info.start_time) / 1000
    if not root.is_dir():
        return
    for item in sorted(client.list_artifacts(run.info.run_id), key=_path_of):
        path = root / item.path
        yield (
            ended,
            log_events.ArtifactEvent.unpublished(item.path, path, "artifact"),
        )


_path_of = operator.attrgetter("path")


def _local_path(address: str | None) -> pathlib.Path | None:
    if not address:
        return None
    parts = urllib.parse.urlsplit(address)
    if parts.scheme == "file":
        return pathlib.Path(urllib.request.url2pathname(parts.path))
    return pathlib.Path(address) if not parts.netloc and "://" not in address else None


def read_param(text: str) -> Any:
    """Return what a parameter was before MLflow had made a text of it.

    Only what would make the same text again is taken for anything else.
    """
    for constant in (True, False, None):
        if text == str(constant):
            return constant
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if str(number) == text:
            return number
    return text


def _hide_password(address: str) -> str:
    parts = urllib.parse.urlsplit(address)
    if parts.password is None:
        return address
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username}:***@{host}").geturl()
