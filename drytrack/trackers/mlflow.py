"""Tracker that logs to MLflow: a server, or a database in the experiment's folder."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from drytrack.core._atomic import create_exclusively
from drytrack.trackers._backend import (
    At,
    Backend,
    MediaFile,
    RunInfo,
    flatten,
    import_backend,
)
from drytrack.trackers._local_server import HOST, serve, show
from drytrack.trackers._name_rule import NameRule
from drytrack.trackers.base import numbered

__all__ = ["MLflow"]

MAX_METRICS_PER_BATCH = 900
"""MLflow takes 1,000 metrics and tags in a request."""

MAX_PARAMS_PER_BATCH = 100

MAX_KEY_LENGTH = 250

UUID_TAG, SEQ_TAG = "drytrack.uuid", "drytrack.seq"

_STATUS = {"completed": "FINISHED", "failed": "FAILED"}

_first_call = threading.Lock()
"""MLflow prepares a database at the first call, and cannot in two threads at once."""


class MLflow(Backend):
    """Logs the run to MLflow.

    Metrics are sent in batches when the tracker is flushed, at the latest a
    second after they were published. The tag ``drytrack.seq`` goes with each
    batch and ``drytrack.uuid`` marks the run, so that one that is resumed or
    replayed goes on where the server knows that it is, and nothing is logged
    twice.

    MLflow's parameters cannot change and are limited. One that changes is logged
    again as ``<name>.attempt_<n>``; a value that is too long is logged as its
    beginning; the whole configuration is the artifact ``params.json``.

    Args:
        par_dir: Where the database and its artifacts are, where no server or
            database is named; by default the experiment's folder.
        tracking_uri: A server or a database, as for ``mlflow.set_tracking_uri``.
            By default what MLflow was told by that or by
            ``MLFLOW_TRACKING_URI``, else ``<par_dir>/mlflow/mlflow.db``.
        experiment_name: Name over there, by default ``MLFLOW_EXPERIMENT_NAME`` or
            the one of ``MLFLOW_EXPERIMENT_ID``, else the experiment's.
        tags: Tags for the run, besides MLflow's own.
    """

    name = "mlflow"
    folder_name = "mlflow"
    notify = Backend.notify.extend()
    rule = NameRule(
        r"[\w. \-/]",
        # What would be another path: no empty, "." or ".." part.
        refused=r"^/|(?<=/)/|/$|^\.{1,2}(?=/|$)|(?<=/)\.{1,2}(?=/|$)",
        max_length=MAX_KEY_LENGTH,
    )

    _client: Any = None
    _run_id: str | None = None

    def __init__(
        self,
        par_dir: str | os.PathLike[str] | None = None,
        *,
        tracking_uri: str | None = None,
        experiment_name: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(par_dir)
        self._tracking_uri = tracking_uri
        self._experiment_name = experiment_name
        self._tags = dict(tags or {})

    # -- the run -------------------------------------------------------------------

    def open(self, info: RunInfo) -> None:
        """Create the run over there, or go on with it."""
        self._client, self._run_id = None, None
        import_backend("mlflow", extra="mlflow", tracker="MLflow")
        from mlflow import entities
        from mlflow.utils import validation

        self._entities = entities
        self._max_value = getattr(validation, "MAX_PARAM_VAL_LENGTH", 500)
        self._info = info
        self._metrics: list[Any] = []
        self._told = 0
        self._params: dict[str, Any] = {}
        self._parent_linked = info.parent_uuid is None
        with _first_call:
            client = self._connect(info)
            self._experiment_id = self._find_experiment(client, info)
        run = self._find_run(client, info) or self._create_run(client, info)
        if run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
        self._known_params = dict(run.data.params)
        self._told = int(run.data.tags.get(SEQ_TAG, 0))
        self._client, self._run_id = client, run.info.run_id
        self.state["run_id"] = self._run_id
        self._link_parent()

    def last_seq(self) -> int | None:
        """Return the sequence number that went with the newest batch."""
        return self._told

    def flush(self) -> None:
        """Send the metrics that were taken, and how far they go."""
        if self._client is None:
            return
        while len(self._metrics) > MAX_METRICS_PER_BATCH:
            batch = self._metrics[:MAX_METRICS_PER_BATCH]
            self._client.log_batch(self._run_id, metrics=batch)
            del self._metrics[: len(batch)]
        tags = []
        if self.taken_seq > self._told and self._info.uuid:
            tags = [self._entities.RunTag(SEQ_TAG, str(self.taken_seq))]
        if self._metrics or tags:
            self._client.log_batch(self._run_id, metrics=self._metrics, tags=tags)
            self._metrics = []
            self._told = max(self._told, self.taken_seq)

    def finish(self, status: str, error: Mapping[str, str] | None) -> None:
        """End the run over there; an error becomes tags and an artifact."""
        if self._client is None:
            return
        self.flush()
        self._link_parent()
        if error is not None:
            self._client.set_tag(self._run_id, "error.type", error["type"])
            self._client.set_tag(self._run_id, "error.message", error["message"][:5000])
            self._log_text(error["traceback"], "traceback.txt")
        self._client.set_terminated(self._run_id, _STATUS.get(status, "KILLED"))
        self._client = None

    # -- what it takes -------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, float], at: At) -> None:
        """Keep metrics for the next batch."""
        make, time_ms = self._entities.Metric, int(at.time_s * 1000)
        self._metrics += [
            make(key, value, time_ms, at.step) for key, value in metrics.items()
        ]

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters, and all of them as an artifact."""
        flat = flatten(params)
        self._params.update(flat)
        known = dict(self._known_params)
        new = dict(self._adapt_params(flat, known))
        known.update(new)
        pairs = [self._entities.Param(key, text) for key, text in new.items()]
        for first in range(0, len(pairs), MAX_PARAMS_PER_BATCH):
            batch = pairs[first : first + MAX_PARAMS_PER_BATCH]
            self._client.log_batch(self._run_id, params=batch)
        self._known_params = known
        text = json.dumps(self._params, indent=2, ensure_ascii=False, default=str)
        self._log_text(text, numbered("params", ".json", self._info.attempt))

    def log_summary(self, summary: Mapping[str, Any]) -> None:
        """Log numbers as metrics ``summary/<name>``, others as tags."""
        now = int(time.time() * 1000)
        for name, value in flatten(summary).items():
            key = self.rule.adapt(f"summary/{name}")
            if isinstance(value, (int, float)):
                metric = self._entities.Metric(key, float(value), now, 0)
                self._metrics.append(metric)
            else:
                self._client.set_tag(self._run_id, key, self._cut(str(value)))

    def log_image(
        self, name: str, image: MediaFile, at: At, caption: str | None
    ) -> None:
        """Log the file as ``images/<name>/<step>.<format>``, its caption beside it."""
        folder = f"images/{name}"
        self._log_bytes(image.data, folder, f"{at.step}.{image.format}")
        if caption:
            self._log_text(caption, f"{folder}/{at.step}.txt")

    def log_figure(
        self, name: str, figure: MediaFile, at: At, caption: str | None
    ) -> None:
        """Log a picture as an image, a figure of plotly as its JSON."""
        if figure.format == "plotly":
            self._log_bytes(figure.data, f"figures/{name}", f"{at.step}.json")
        else:
            self.log_image(name, figure, at, caption)

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], at: At
    ) -> None:
        """Log a table as MLflow's own tables are, which it shows as such."""
        table = {"columns": list(columns), "data": [list(row) for row in rows]}
        self._log_json(table, f"tables/{name}/{at.step}.json")

    def log_text(self, name: str, text: str, at: At) -> None:
        """Log a text as ``texts/<name>/<step>.txt``."""
        self._log_text(text, f"texts/{name}/{at.step}.txt")

    def log_histogram(
        self, name: str, counts: Sequence[float], bin_edges: Sequence[float], at: At
    ) -> None:
        """Log a histogram as ``histograms/<name>/<step>.json``."""
        histogram = {
            "counts": [float(count) for count in counts],
            "bin_edges": [float(edge) for edge in bin_edges],
        }
        self._log_json(histogram, f"histograms/{name}/{at.step}.json")

    def log_artifact(
        self,
        name: str,
        path: pathlib.Path,
        *,
        kind: str,
        metadata: Mapping[str, Any],
        artifact_path: str | None,
    ) -> None:
        """Log a file or a folder, and what is known of it beside it."""
        where = artifact_path or f"{kind}/{self.rule.adapt(name)}"
        if path.is_dir():
            self._client.log_artifacts(self._run_id, str(path), where)
        else:
            self._client.log_artifact(self._run_id, str(path), where)
        if metadata:
            self._log_json(metadata, f"{where}/{path.name}.metadata.json")

    def log_model(
        self,
        name: str,
        path: pathlib.Path,
        *,
        metadata: Mapping[str, Any],
        artifact_path: str | None,
    ) -> None:
        """Log a saved model: as a model of the run where MLflow has such, from 3 on.

        It is an artifact besides, as before.
        """
        self.log_artifact(
            name, path, kind="model", metadata=metadata, artifact_path=artifact_path
        )
        if not hasattr(self._client, "create_logged_model"):
            return
        model = self._find_model(name) or self._client.create_logged_model(
            self._experiment_id,
            name=_only_word_characters(name),
            source_run_id=self._run_id,
            tags={"drytrack.name": name, **self._model_mark()},
            params={key: self._cut(str(value)) for key, value in metadata.items()},
        )
        if path.is_dir():
            self._client.log_model_artifacts(model.model_id, str(path))
        else:
            self._client.log_model_artifact(model.model_id, str(path))
        self._client.finalize_logged_model(model.model_id, "READY")

    # -- looking at it -------------------------------------------------------------

    @property
    def run_id(self) -> str | None:
        """The id of the run over there; None before it is open."""
        return self._run_id

    @property
    def native(self) -> Any:
        """The ``mlflow.MlflowClient``; what it does needs `run_id`."""
        return self._client

    @property
    def url(self) -> str | None:
        """The page of the run on its server; None where there is none."""
        if self._run_id is None or not self._uri.startswith(("http://", "https://")):
            return None
        parts = urllib.parse.urlsplit(self._uri)
        # Without user and password.
        address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        page = f"experiments/{self._experiment_id}/runs/{self._run_id}"
        return f"{address.rstrip('/')}/#/{page}"

    def launch_dashboard(self, port: int | None = 5000) -> str:
        """Serve MLflow's page for the database of this run, until the run ends.

        It is served to this machine alone.

        Args:
            port: Where to serve; the next free port is taken where it is in use.

        Returns:
            The address.

        Raises:
            BackendError: If no port is free, the server does not start, or the run
                is on a server already.
        """
        if self._uri.startswith(("http://", "https://")):
            super().launch_dashboard(port)
        server = serve(
            "mlflow",
            lambda found: [
                *("server", "--backend-store-uri", self._uri, "--host", HOST),
                *("--port", str(found), "--workers", "1"),
            ],
            5000 if port is None else port,
        )
        address = self.enter_context(server)
        show(address, "MLflow")
        return address

    # -- inside --------------------------------------------------------------------

    def _connect(self, info: RunInfo) -> Any:
        import mlflow

        base = (self.par_dir or info.par_dir) / self.folder_name
        self._artifacts: str | None = None
        if self._tracking_uri is not None:
            self._uri = self._tracking_uri
        elif mlflow.is_tracking_uri_set():
            self._uri = mlflow.get_tracking_uri()
        else:
            base.mkdir(parents=True, exist_ok=True)
            self._artifacts = (base / "artifacts").as_uri()
            self._uri = _create_database(base / "mlflow.db", self._artifacts)
        return mlflow.MlflowClient(tracking_uri=self._uri)

    def _find_experiment(self, client: Any, info: RunInfo) -> str:
        from mlflow.exceptions import MlflowException

        name = self._experiment_name or os.environ.get("MLFLOW_EXPERIMENT_NAME")
        number = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if not name and number:
            return number
        name = name or info.experiment
        found = client.get_experiment_by_name(name)
        if found is None:
            place = self._artifacts and f"{self._artifacts}/{info.experiment}"
            try:
                return str(client.create_experiment(name, artifact_location=place))
            except MlflowException:
                # Another process may have been faster.
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _find_run(self, client: Any, info: RunInfo) -> Any:
        from mlflow.exceptions import MlflowException

        if "run_id" in self.state:
            with contextlib.suppress(MlflowException):  # another server's, or deleted
                run = client.get_run(self.state["run_id"])
                if run.info.lifecycle_stage == "active":
                    return run
        if info.uuid is None:
            return None
        return _find_by_uuid(client, [self._experiment_id], info.uuid)

    def _create_run(self, client: Any, info: RunInfo) -> Any:
        from mlflow.tracking.context.registry import resolve_tags

        tags = {
            **resolve_tags(),
            **{f"label.{self.rule.adapt(tag)}": "true" for tag in info.tags},
            "mlflow.runName": info.run_id,
        }
        if info.uuid:
            tags[UUID_TAG] = info.uuid
        if info.description:
            tags["mlflow.note.content"] = info.description
        return client.create_run(
            self._experiment_id,
            start_time=int(info.created.timestamp() * 1000),
            run_name=info.run_id,
            tags={**tags, **self._tags},
        )

    def _link_parent(self) -> None:
        """Nest the run; its parent may come over there after it."""
        if self._parent_linked:
            return
        ids = [found.experiment_id for found in self._client.search_experiments()]
        assert self._info.parent_uuid is not None  # linked otherwise
        parent = _find_by_uuid(self._client, ids, self._info.parent_uuid)
        if parent is not None:
            self._client.set_tag(self._run_id, "mlflow.parentRunId", parent.info.run_id)
            self._parent_linked = True

    def _adapt_params(
        self, flat: Mapping[str, Any], known: Mapping[str, str]
    ) -> Iterator[tuple[str, str]]:
        """Yield what is not known yet, within the limits."""
        for name, value in flat.items():
            text = self._cut(value if isinstance(value, str) else _as_text(value))
            key = self.rule.adapt(name)
            number = self._info.attempt
            while known.get(key, text) != text:
                key = self.rule.adapt(f"{name}.attempt_{number}")
                number += 1
            if key not in known:
                yield key, text

    def _cut(self, text: str) -> str:
        if len(text) <= self._max_value:
            return text
        mark = f"… ({len(text)} characters)"
        return text[: self._max_value - len(mark)] + mark

    def _find_model(self, name: str) -> Any:
        """Return the model that an earlier try has created, if there was one."""
        mark = self._model_mark()
        if not mark:
            return None
        found = self._client.search_logged_models(
            [self._experiment_id], filter_string=f"source_run_id = '{self._run_id}'"
        )
        return next(
            (model for model in found if mark.items() <= model.tags.items()), None
        )

    def _model_mark(self) -> dict[str, str]:
        return {} if self.seq is None else {SEQ_TAG: str(self.seq)}

    def _log_text(self, text: str, artifact_file: str) -> None:
        folder, _, name = artifact_file.rpartition("/")
        self._log_bytes(text.encode("utf-8", "replace"), folder or None, name)

    def _log_json(self, value: Any, artifact_file: str) -> None:
        text = json.dumps(value, ensure_ascii=False, default=str)
        self._log_text(text, artifact_file)

    def _log_bytes(self, data: bytes, folder: str | None, name: str) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            path = pathlib.Path(temporary) / name
            path.write_bytes(data)
            self._client.log_artifact(self._run_id, str(path), folder)


def _create_database(path: pathlib.Path, artifacts: str) -> str:
    """Create a database where there is none; return its address.

    Two processes that let MLflow create one file disturb each other, so each
    makes one of its own, and the first to have finished puts it in place.
    """
    if not path.exists():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with tempfile.TemporaryDirectory() as folder:
            draft = pathlib.Path(folder) / path.name
            address = f"sqlite:///{draft.as_posix()}"
            store = SqlAlchemyStore(address, artifacts)
            store.engine.dispose()
            with contextlib.suppress(FileExistsError):  # another one was faster
                create_exclusively(path, draft.read_bytes())
    return f"sqlite:///{path.as_posix()}"


def _find_by_uuid(client: Any, experiment_ids: Sequence[str], uuid: str) -> Any:
    found = client.search_runs(
        list(experiment_ids),
        filter_string=f"tags.`{UUID_TAG}` = '{uuid}'",
        max_results=1,
    )
    return found[0] if found else None


def _as_text(value: Any) -> str:
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _only_word_characters(name: str) -> str:
    """Return a name that MLflow takes for a model: no ``/``, ``:`` and the like."""
    return "".join(c if c.isalnum() or c in "-_ " else "_" for c in name) or "model"
