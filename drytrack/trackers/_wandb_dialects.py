"""What the modules that look like W&B do in their own way."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from drytrack.core.exceptions import BackendError
from drytrack.trackers._run_info import thaw

if TYPE_CHECKING:
    import pathlib
    from types import ModuleType

    from drytrack.trackers._backend import At, RunInfo

__all__ = ["Dialect", "SwanLabDialect", "TrackioDialect", "dialect_of"]

FINISH_TIMEOUT_S = 50.0
"""How long W&B may upload at the end of a run: less than the bus waits."""

RELEASE_TIMEOUT_S = 5.0
"""How long the service process may take to let go of a run that has ended."""

_openings: set[object] = set()
"""Runs that are being opened now, by whatever thread."""


class Dialect:
    """How W&B itself is spoken to.

    Args:
        module: The module.
        folder: Where it writes.
        settings: The user's, in whatever form the module takes them.

    Attributes:
        has_artifacts: Whether `log_artifact` has a place for them.
        odd_floats: Whether NaN and infinities may stand anywhere but in metrics.
    """

    has_artifacts: ClassVar[bool] = True
    odd_floats: ClassVar[bool] = True

    def __init__(self, module: ModuleType, folder: pathlib.Path, settings: Any) -> None:
        self.module: Any = module
        self.folder = folder
        self.settings = settings

    def init(self, info: RunInfo, options: Mapping[str, Any]) -> Any:
        """Open the run, or re-attach to the one of ``options["id"]``."""
        ours = {
            "project": info.experiment,
            "name": info.run_id,
            "tags": list(info.tags) or None,
            "notes": info.description,
        }
        given = {
            "settings": self._fill_in_settings(),
            "resume": "allow",
            # Where a variable of W&B's own says it, that is what it is read for.
            **{k: v for k, v in ours.items() if f"WANDB_{k.upper()}" not in os.environ},
            **options,
        }
        deadline = time.monotonic() + RELEASE_TIMEOUT_S
        while True:
            opening = object()
            _openings.add(opening)
            try:
                return self.module.init(**given)
            except Exception as err:
                # By an attempt that has ended, while its last bytes are written.
                if "is in use" not in str(err) or time.monotonic() > deadline:
                    self._release()
                    raise
            finally:
                _openings.discard(opening)
            time.sleep(0.1)

    def _release(self) -> None:
        """End the service process, which never lets go of a run it failed to begin.

        Only where it has no other one: else the run can be opened there by the
        next process, not by this one.
        """
        others = getattr(self.module.setup(), "most_recent_active_run", self)
        if others is None and len(_openings) == 1:
            self.module.teardown(exit_code=1)

    def _fill_in_settings(self) -> Any:
        """Return settings with what a tracker needs, where the user left it open."""
        if self.settings is None or isinstance(self.settings, Mapping):
            settings = self.module.Settings(**(self.settings or {}))
        else:
            settings = self.settings.model_copy()
        chosen = settings.model_fields_set
        # The other values would hand one run to all that overlap.
        if "reinit" not in chosen:
            settings.reinit = "create_new"
        # Output is captured by wrapping the streams of the whole process.
        if "console" not in chosen:
            settings.console = "off"
        # A server that is gone must not hold the process at its end.
        if "finish_timeout" not in chosen and hasattr(settings, "finish_timeout"):
            settings.finish_timeout = FINISH_TIMEOUT_S
        if "root_dir" not in chosen:
            self.folder.mkdir(parents=True, exist_ok=True)
            settings.root_dir = str(self.folder)
        return settings

    def url(self, run: Any) -> str | None:
        """Return the page of the run; None where there is none."""
        url = getattr(run, "url", None)
        return str(url) if url else None

    def define(self, run: Any, name: str, axis: str) -> None:
        """Say which column is the x-axis of a metric."""
        # What ends in a star would be a pattern there.
        if "*" not in name:
            run.define_metric(name, step_metric=axis)

    def log(self, run: Any, row: Mapping[str, Any], at: At, seq: int | None) -> None:
        """Log a row; one whose sequence number is not newer is left out there."""
        data = {**row, at.axis: at.step, "_timestamp": at.time_s}
        if seq is None:
            run.log(data)
        else:
            run.log(data, step=seq, commit=True)

    def log_config(self, run: Any, params: Mapping[str, Any]) -> None:
        """Add to the configuration."""
        run.config.update(self._thaw(params), allow_val_change=True)

    def log_summary(self, run: Any, summary: Mapping[str, Any]) -> bool:
        """Set values of the summary; return whether there is one."""
        run.summary.update(summary)
        return True

    def image(self, path: pathlib.Path, caption: str | None) -> Any:
        """Return an image file as what `log` takes."""
        return self.module.Image(str(path), caption=caption)

    def histogram(self, counts: Sequence[float], edges: Sequence[float]) -> Any:
        """Return a histogram as what `log` takes; None where there is none."""
        return self.module.Histogram(np_histogram=(list(counts), list(edges)))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
        """Return a table as what `log` takes; None where there is none."""
        return self.module.Table(
            columns=list(columns),
            data=self._thaw(rows),
            allow_mixed_types=True,
        )

    def text(self, text: str) -> Any:
        """Return a text as what `log` takes."""
        import html

        return self.module.Html(f"<pre>{html.escape(text)}</pre>", inject=False)

    def log_artifact(
        self,
        run: Any,
        name: str,
        path: pathlib.Path,
        *,
        kind: str,
        metadata: Mapping[str, Any],
        aliases: Sequence[str],
        folder: str | None,
    ) -> None:
        """Log a file or a folder."""
        about = self._thaw(metadata)
        artifact = self.module.Artifact(name, type=kind, metadata=about)
        if path.is_dir():
            artifact.add_dir(str(path), name=folder)
        else:
            inside = f"{folder.strip('/')}/{path.name}" if folder else path.name
            artifact.add_file(str(path), name=inside)
        run.log_artifact(artifact, aliases=list(aliases))

    def watch(self, run: Any, model: object, options: Mapping[str, Any]) -> None:
        """Watch a torch model."""
        # Its hooks log to the global run, which a run that may overlap is not.
        if self.module.run is None:
            self.module.run = run
        run.watch(model, **options)

    def flush(self, run: Any) -> None:
        """Wait until the service process has what was logged."""
        run.status()

    def finish(self, run: Any, status: str, error: Mapping[str, str] | None) -> None:
        """Close the run."""
        if self.module.run is run:
            self.module.run = None
        run.finish(exit_code=0 if status == "completed" else 1)

    def _thaw(self, value: Any) -> Any:
        return thaw(value, odd_floats=self.odd_floats)


class TrackioDialect(Dialect):
    """Trackio: local SQLite; runs are found by name, steps may come in any order."""

    odd_floats = False

    def init(self, info: RunInfo, options: Mapping[str, Any]) -> Any:
        """Open the run, or go on in the one of the same name."""
        options = {
            "project": info.experiment,
            "resume": "allow",
            "embed": False,
            "name": info.run_id,
            **options,
        }
        del options["id"]  # they are given there
        config = {"tags": list(info.tags), "notes": info.description}
        given = options.pop("config", None) or {}
        kept = {name: value for name, value in config.items() if value}
        return self.module.init(config={**kept, **given}, **options)

    def define(self, run: Any, name: str, axis: str) -> None:
        """Do nothing: there is one x-axis, which `log` uses for each metric's own."""

    def log(self, run: Any, row: Mapping[str, Any], at: At, seq: int | None) -> None:
        """Log a row at its own step."""
        run.log(dict(row), step=at.step)

    def log_config(self, run: Any, params: Mapping[str, Any]) -> None:
        """Add to the configuration, which goes out with the next row."""
        run.config.update(self._thaw(params))
        run._config_logged = False

    def log_summary(self, run: Any, summary: Mapping[str, Any]) -> bool:
        """Do nothing: there is no summary, and what was configured is fixed."""
        return False

    def text(self, text: str) -> Any:
        """Return a text."""
        return self.module.Markdown(text)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
        """Return a table."""
        return self.module.Table(columns=list(columns), data=self._thaw(rows))

    def flush(self, run: Any) -> None:
        """Write now what its own thread writes a few times a second."""
        run._flush_queues_inline()

    def finish(self, run: Any, status: str, error: Mapping[str, str] | None) -> None:
        """Close the run; how it ended has no place there."""
        run.finish()


class SwanLabDialect(Dialect):
    """SwanLab: one run at a time in a process."""

    has_artifacts = False
    odd_floats = False

    def init(self, info: RunInfo, options: Mapping[str, Any]) -> Any:
        """Open the run; the server alone knows how to go on in one."""
        given = {
            "project": info.experiment,
            "resume": "allow",
            "name": info.run_id,
            "description": info.description,
            "tags": list(info.tags) or None,
            "log_dir": str(self.folder / "swanlog"),
            **options,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            return self.module.init(settings=self.settings, **given)
        except RuntimeError as err:
            if not self.module.has_run():
                raise
            msg = (
                "SwanLab watches another run of this process, and can watch one at a "
                "time. Replay this run into it when the other one has ended."
            )
            raise BackendError(msg) from err

    def url(self, run: Any) -> str | None:
        """Return the page of the run; asking for it offline is an error there."""
        return str(run.url) if run.mode == "online" else None

    def define(self, run: Any, name: str, axis: str) -> None:
        """Say which column is the x-axis of a metric."""
        if "*" not in name:
            run.define_metric(name, x_axis=axis)

    def log(self, run: Any, row: Mapping[str, Any], at: At, seq: int | None) -> None:
        """Log a row; NaN and infinity are written there as they are."""
        run.log({**row, at.axis: at.step}, step=seq)

    def log_config(self, run: Any, params: Mapping[str, Any]) -> None:
        """Add to the configuration."""
        run.config.update(self._thaw(params))

    def log_summary(self, run: Any, summary: Mapping[str, Any]) -> bool:
        """Set them as configuration, for the summary is made by the server."""
        self.log_config(run, {"summary": summary})
        return True

    def histogram(self, counts: Sequence[float], edges: Sequence[float]) -> Any:
        """Return a histogram as a bar chart."""
        echarts = self.module.echarts
        bar = echarts.Bar()
        bar.add_xaxis([f"{edge:.4g}" for edge in edges[:-1]])
        bar.add_yaxis("count", [float(count) for count in counts])
        return bar

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
        """Return a table as a chart."""
        table = self.module.echarts.Table()
        table.add(list(columns), self._thaw(rows))
        return table

    def text(self, text: str) -> Any:
        """Return a text."""
        return self.module.Text(text)

    def flush(self, run: Any) -> None:
        """Do nothing: it is written by a thread of its own."""

    def finish(self, run: Any, status: str, error: Mapping[str, str] | None) -> None:
        """Close the run."""
        if status == "completed":
            run.finish()
        elif status == "failed" and error:
            run.finish("crashed", error=f"{error['type']}: {error['message']}")
        else:
            run.finish("aborted")


def dialect_of(module: ModuleType) -> type[Dialect]:
    """Return how a module is spoken to; as W&B, where nothing else is known."""
    dialects = {"trackio": TrackioDialect, "swanlab": SwanLabDialect}
    return dialects.get(module.__name__.partition(".")[0], Dialect)
