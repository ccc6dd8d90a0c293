"""Tracker that logs to Weights & Biases, and to the modules shaped like it."""

from __future__ import annotations

import io
import pathlib
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from drytrack.core.exceptions import BackendError
from drytrack.trackers._backend import (
    At,
    Backend,
    MediaFile,
    RunInfo,
    import_backend,
)
from drytrack.trackers._name_rule import NameRule
from drytrack.trackers._wandb_dialects import dialect_of

if TYPE_CHECKING:
    import os

__all__ = ["Wandb"]

_PICTURES = {"png": "png", "jpeg": "jpg", "bmp": "bmp", "gif": "gif"}


class Wandb(Backend):
    """Logs to Weights & Biases, online or offline.

    A row is logged with the sequence number of its event as W&B's own step, which
    must ascend there: what comes again after a crash, by catching up or by a
    replay, is left out by W&B itself. Each metric has its own column as x-axis
    (``epoch``, ``step``, or a user's own), set with ``define_metric``. A metric
    called as the axis that it is logged on gets ``_value`` behind its name.

    A resumed run goes on under the same id. Offline, it then has one folder for
    each attempt below ``<par_dir>/wandb``, which ``wandb sync`` joins again.

    Unless ``settings`` say otherwise, the console is not captured, runs may
    overlap, and at the end of a run W&B stops uploading after 50 s: what is left
    stays in its folder for ``wandb sync``.

    Args:
        settings: A ``wandb.Settings`` object, or a mapping; passed through.
        par_dir: Where W&B writes, by default the experiment's folder.
        module: The module to drive: ``wandb``, or one that is shaped like it
            (``trackio``, ``swanlab``).
        **options: Of ``wandb.init``: ``project`` (by default ``WANDB_PROJECT``, else
            the experiment's name), ``entity``, ``group``, ``job_type``, ``mode``,
            ``name`` (by default ``WANDB_NAME``, else the run's id), …
    """

    folder_name = "wandb"
    notify = Backend.notify.extend()
    # A star is a pattern in define_metric; what W&B counts itself begins so.
    rule = NameRule(r"[^*]", refused=r"^_(?=(?:step|timestamp|runtime|wandb)$)")
    artifact_rule = NameRule(r"[A-Za-z0-9_.\-]", max_length=128)

    _run: Any = None

    def __init__(
        self,
        settings: Any = None,
        par_dir: str | os.PathLike[str] | None = None,
        *,
        module: str = "wandb",
        **options: Any,
    ) -> None:
        super().__init__(par_dir)
        self._settings = settings
        self._module_name = module
        self._options = options

    # -- the run -------------------------------------------------------------------

    def open(self, info: RunInfo) -> None:
        """Open the run, or re-attach to it."""
        self._run = None
        self._defined: set[tuple[str, str]] = set()
        self._unsent = False
        module = import_backend(
            self._module_name,
            extra=self._module_name.partition(".")[0],
            tracker=type(self).__name__,
        )
        folder = self.par_dir or info.par_dir
        self._dialect = dialect_of(module)(module, folder, self._settings)
        identity = self.state.get("id") or self._options.get("id")
        if identity is None:
            identity = (info.uuid or str(uuid.uuid4())).replace("-", "")
        self._run = self._dialect.init(info, {**self._options, "id": identity})
        self.state.update(id=str(self._run.id), url=self.url)

    def flush(self) -> None:
        """Hand over to the process that writes and uploads."""
        if self._run is not None and self._unsent:
            self._dialect.flush(self._run)
            self._unsent = False

    def finish(self, status: str, error: Mapping[str, str] | None) -> None:
        """Close the run with exit code 0, or 1 where it did not complete."""
        if self._run is not None:
            run, self._run = self._run, None
            self._dialect.finish(run, status, error)

    # -- what it takes -------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, float], at: At) -> None:
        """Log a row."""
        if at.axis in metrics:
            metrics = {
                f"{name}_value" if name == at.axis else name: value
                for name, value in metrics.items()
            }
        for name in metrics:
            if (name, at.axis) not in self._defined:
                self._dialect.define(self._run, name, at.axis)
                self._defined.add((name, at.axis))
        self._log(metrics, at)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Add to the configuration."""
        self._dialect.log_config(self._run, params)

    def log_summary(self, summary: Mapping[str, Any]) -> None:
        """Set values of the summary."""
        if self._dialect.log_summary(self._run, summary):
            self._unsent = True
        else:
            self._pass_over("summary values", len(summary))

    def log_image(
        self, name: str, image: MediaFile, at: At, caption: str | None
    ) -> None:
        """Log an image."""
        suffix, data = _PICTURES.get(image.format), image.data
        if image.format == "webp":
            suffix, data = "png", _as_png(image.data)
        if suffix is None:
            self._pass_over(f"{image.format} images")
            return
        # The module copies the file when it is logged, into a folder of its own.
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, f"image.{suffix}")
            path.write_bytes(data)
            self._log({name: self._dialect.image(path, caption)}, at)

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], at: At
    ) -> None:
        """Log a table."""
        self._log({name: self._dialect.table(columns, rows)}, at)

    def log_text(self, name: str, text: str, at: At) -> None:
        """Log a text."""
        self._log({name: self._dialect.text(text)}, at)

    def log_histogram(
        self, name: str, counts: Sequence[float], bin_edges: Sequence[float], at: At
    ) -> None:
        """Log a distribution."""
        self._log({name: self._dialect.histogram(counts, bin_edges)}, at)

    def log_artifact(
        self,
        name: str,
        path: pathlib.Path,
        *,
        kind: str,
        metadata: Mapping[str, Any],
        artifact_path: str | None,
    ) -> None:
        """Log an artifact, with an alias for its ``version`` if it has one."""
        if not self._dialect.has_artifacts:
            self._pass_over("artifacts")
            return
        aliases = ["latest"]
        if "version" in metadata:
            version = str(metadata["version"])
            # W&B gives out v0, v1, … itself.
            is_its_own = version[:1] == "v" and version[1:].isdigit()
            aliases.append(f"version-{version}" if is_its_own else version)
        self._dialect.log_artifact(
            self._run,
            self.artifact_rule.adapt(name),
            path,
            kind=self.artifact_rule.adapt(kind),
            metadata=metadata,
            aliases=aliases,
            folder=artifact_path,
        )

    def watch(self, model: object, **options: Any) -> None:
        """Let W&B log gradients and parameters of a torch model.

        Args:
            model: The model.
            **options: Of ``wandb.watch``: ``log``, ``log_freq`` and so on.

        Raises:
            BackendError: If the module cannot, or no run is open.
        """
        self._require("watch")
        self._dialect.watch(self._run, model, options)

    def alert(self, title: str, text: str, **options: Any) -> None:
        """Send an alert to whoever has asked W&B for them.

        Args:
            title: At most 64 characters.
            text: What happened.
            **options: Of ``wandb.Run.alert``: ``level``, ``wait_duration``.

        Raises:
            BackendError: If the module cannot, or no run is open.
        """
        self._require("alert")(title=title, text=text, **options)

    @property
    def native(self) -> Any:
        """The module's own run; None where no run is open."""
        return self._run

    @property
    def url(self) -> str | None:
        """The page of the run; None offline."""
        return None if self._run is None else self._dialect.url(self._run)

    # -- inside --------------------------------------------------------------------

    def _log(self, row: Mapping[str, Any], at: At) -> None:
        seq = self.seq if self.seq is not None and self.seq > 0 else None
        self._dialect.log(self._run, row, at, seq)
        self._unsent = True

    def _require(self, method: str) -> Any:
        self.wait_until_open()
        found = getattr(self._run, method, None)
        if found is None:
            what = "no run is open" if self._run is None else "it has no such method"
            msg = (
                f"{self._module_name} cannot {method}: {what}. Call it inside a run, "
                f"after wait_until_open()."
            )
            raise BackendError(msg)
        return found


def _as_png(data: bytes) -> bytes:
    from PIL import Image

    written = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        picture.save(written, "PNG")
    return written.getvalue()
