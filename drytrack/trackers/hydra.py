"""Tracker that ties a run to the output folder that Hydra made for it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pathlib
import re
import shutil
from typing import Any, NamedTuple

from drytrack.core import _current, _record, log_events
from drytrack.core._secrets import mask_text
from drytrack.core.exceptions import RecordError, RunExistsError
from drytrack.core.run import new_record
from drytrack.trackers._backend import import_backend
from drytrack.trackers.base import Dumper, numbered

__all__ = ["HydraLink"]

TEXT_SUFFIXES = (".yaml", ".yml", ".log", ".txt", ".json")
"""Files whose secrets are masked in a copy."""

_logger = logging.getLogger("drytrack")


class _Job(NamedTuple):
    """What Hydra says of the job that runs.

    Attributes:
        output: Its output folder.
        sweep: The folder of the sweep that it is a part of, or None.
        overrides: What was changed on the command line for it.
    """

    output: pathlib.Path
    sweep: pathlib.Path | None
    overrides: list[str]


class HydraLink(Dumper):
    """Links the output folder of Hydra's job to the run, and can copy it.

    The link is ``<par_dir>/hydra/<experiment>/…/output``; where the system
    refuses links, ``output.txt`` holds the path. Each attempt of a run has a
    folder of Hydra's of its own, and a link of its own: ``output_2`` and so on.

    In a multirun each job is a run. They share a parent, which stands for the
    sweep: it is recorded when the first job starts, has no journal, and is
    ``failed`` once a job has failed. Its id is ``sweep_<folder>_<digest>``.

    Outside of Hydra, nothing happens.

    Args:
        par_dir: Where to write, by default the experiment's folder.
        copy: Whether to copy the output folder when the run ends, to ``copy``
            beside the link. Secrets in its texts are masked.
    """

    name = "hydra"
    background = True
    folder_name = "hydra"
    notify = Dumper.notify.extend()

    def __init__(
        self, par_dir: str | os.PathLike[str] | None = None, *, copy: bool = False
    ) -> None:
        super().__init__(par_dir)
        self._copy = copy

    @notify.register
    def _link(self, event: log_events.StartExperimentEvent) -> None:
        import_backend("hydra", extra="hydra", tracker="HydraLink")
        self._job = _find_job()
        if self._job is None:
            _logger.info("HydraLink: no Hydra job runs here, so there is no link.")
            return
        outputs: dict[str, str] = self.state.setdefault("outputs", {})
        if str(event.attempt) in outputs:
            # A replay, perhaps from another job: the link is what it was.
            self._job = self._job._replace(
                output=pathlib.Path(outputs[str(event.attempt)])
            )
        else:
            outputs[str(event.attempt)] = str(self._job.output)
        link = self.run_dir / numbered("output", "", event.attempt)
        if not os.path.lexists(link):
            _point(link, self._job.output)
        if self._job.sweep is not None:
            _set_parent(event, self._job)

    @notify.register
    def _end(self, event: log_events.StopExperimentEvent) -> None:
        if self._job is None:
            return
        if self._copy:
            self._copy_output(self._job.output)
        if self._job.sweep is not None:
            start = self.start_event
            sweep_id = _sweep_id(self._job.sweep)
            _note_end(
                _record.run_folder(start.par_dir, start.exp_name, sweep_id),
                event.status,
            )

    def _copy_output(self, output: pathlib.Path) -> None:
        start = self.start_event
        target = self.run_dir / numbered("copy", "", start.attempt)
        draft = target.with_name(f".{target.name}")
        own = (self.par_dir or start.par_dir) / self.folder_name
        # The folders may lie within the one that is copied.
        left_out = {os.path.realpath(own)}
        left_out.add(os.path.realpath(start.par_dir / _record.FOLDER))

        def skip(folder: str, names: list[str]) -> list[str]:
            real = os.path.realpath(folder)
            return [name for name in names if os.path.join(real, name) in left_out]  # noqa: PTH118  # as copytree has it

        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(
            output, draft, symlinks=True, ignore=skip, copy_function=_copy_masked
        )
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)


def _find_job() -> _Job | None:
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return None
    config: Any = HydraConfig.get()
    output = pathlib.Path(config.runtime.output_dir)
    sweep = None
    if str(config.mode).endswith("MULTIRUN"):
        sweep = pathlib.Path(config.runtime.cwd, config.sweep.dir)
    return _Job(output, sweep, [str(text) for text in config.overrides.task])


def _point(link: pathlib.Path, target: pathlib.Path) -> None:
    try:
        link.symlink_to(target, target_is_directory=True)
    except (OSError, NotImplementedError):  # Windows without the permission
        link.with_name(f"{link.name}.txt").write_text(str(target), encoding="utf-8")


def _copy_masked(source: str, target: str) -> str:
    if source.endswith(TEXT_SUFFIXES):
        with contextlib.suppress(UnicodeDecodeError):  # no text: copied as it is
            text = pathlib.Path(source).read_text(encoding="utf-8")
            pathlib.Path(target).write_text(mask_text(text), encoding="utf-8")
            return target
    return shutil.copy2(source, target)


def _sweep_id(folder: pathlib.Path) -> str:
    """Return the id of a sweep: ``sweep_2026-11-20_23-12-01_1f9c3a``."""
    words = re.findall(r"[\w\-]+", "_".join(folder.parts[-2:]), re.ASCII)
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:6]
    return f"sweep_{'_'.join(words)[:100]}_{digest}"


def _set_parent(start: log_events.StartExperimentEvent, job: _Job) -> None:
    """Record the sweep, unless another job has, and name it in the job's record."""
    assert job.sweep is not None  # the caller has looked
    runs = [
        run
        for run in _current.active_runs()
        if (run.experiment.name, run.id) == (start.exp_name, start.run_id)
    ]
    if len(runs) != 1 or runs[0].path is None or runs[0].parent is not None:
        return  # a replay, no record, or a parent of the user's
    writer = runs[0]._record
    assert writer is not None  # goes with the path
    sweep_id = _sweep_id(job.sweep)
    folder = _record.run_folder(start.par_dir, start.exp_name, sweep_id)
    with contextlib.suppress(RunExistsError):  # another job has recorded it
        data = new_record(
            start.exp_name,
            sweep_id,
            tags=list(start.tags),
            description=start.description,
            sweep={"dir": str(job.sweep)},
        )
        # In front of its jobs, and so never the last run, which `resume` takes.
        data["created"] = min(data["created"], start.run_ts.timestamp()) - 1e-3
        _record.make_run_folder(start.par_dir, data)
    uuid = _record.read_record(folder).uuid
    writer.write(
        parent={"id": sweep_id, "uuid": uuid},
        overrides=[mask_text(text) for text in job.overrides],
    )


def _note_end(folder: pathlib.Path, status: str) -> None:
    """Let the sweep be what its jobs are: failed once one has failed."""
    try:
        data = dict(_record.read_record(folder).data)
    except RecordError:
        return
    if status == "completed" and data["status"] != "created":
        return
    writer = _record.RecordWriter(folder, data, _logger.warning)
    writer.write(status="completed" if status == "completed" else "failed")
