"""What a backend is told: of the run, and of where in it something was logged."""

from __future__ import annotations

import dataclasses
import logging
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from drytrack.core import _record, log_events
from drytrack.core.exceptions import RecordError

if TYPE_CHECKING:
    import datetime

__all__ = ["At", "RunInfo", "describe_run", "flatten", "identify", "thaw"]

_logger = logging.getLogger("drytrack")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What a backend is told of a run when it opens it.

    Attributes:
        experiment: Name of the experiment; other tools say project.
        run_id: Id of the run, unique in its experiment.
        uuid: Id of the run, unique in the world; None where it is not recorded.
        parent_uuid: The same of the run that it is a part of, or None.
        attempt: Number of the attempt, from 1.
        resumed: Whether the run goes on from an earlier attempt.
        created: When the run was first created, local time.
        config: The configuration as plain data, secrets masked.
        tags: Labels.
        description: What the experiment is about.
        environment: Host, rank, packages and the like, as recorded.
        par_dir: The folder that the experiment writes to.
        run_dir: The folder for the backend's own files of this run. It may not
            exist; `Dumper.run_dir` creates it.
    """

    experiment: str
    run_id: str
    uuid: str | None
    parent_uuid: str | None
    attempt: int
    resumed: bool
    created: datetime.datetime
    config: Mapping[str, Any]
    tags: Sequence[str]
    description: str | None
    environment: Mapping[str, Any]
    par_dir: pathlib.Path
    run_dir: pathlib.Path


class At(NamedTuple):
    """Where in the run something was logged.

    Attributes:
        step: The step, or the epoch where the axis is ``epoch``.
        axis: What the step counts: ``step``, ``epoch``, or a user's own.
        time_s: When it was published, in seconds since the epoch.
        attempt: The attempt that published it, from 1.
        context: Labels such as ``{"split": "val"}``; empty unless the backend
            ``keeps_context``: otherwise they are a part of the name.
    """

    step: int
    axis: str
    time_s: float
    attempt: int
    context: Mapping[str, Any]


def describe_run(
    start: log_events.StartExperimentEvent, run_dir: pathlib.Path
) -> RunInfo:
    """Return what there is to know of a run, from its start event and its record."""
    folder = _record.run_folder(start.par_dir, start.exp_name, start.run_id)
    record: dict[str, Any] = {}
    try:
        if folder.exists():
            record = dict(_record.read_record(folder).data)
    except (RecordError, OSError) as err:
        _logger.debug("the record in %s cannot be read: %s", folder, err)
    attempts = record.get("attempts") or [{}]
    config = start.config
    if not isinstance(config, Mapping):
        config = {} if config is None else {"config": config}
    return RunInfo(
        experiment=start.exp_name,
        run_id=start.run_id,
        uuid=record.get("uuid"),
        parent_uuid=(record.get("parent") or {}).get("uuid"),
        attempt=start.attempt,
        resumed=start.resumed,
        created=start.run_ts,
        config=config,
        tags=start.tags,
        description=start.description,
        environment=attempts[-1].get("environment", {}),
        par_dir=start.par_dir,
        run_dir=run_dir,
    )


def identify(info: RunInfo) -> dict[str, Any]:
    """Return what tells an attempt from all others, as far as it is known."""
    names = ("run_id", "uuid", "parent_uuid", "attempt")
    return {name: value for name in names if (value := getattr(info, name))}


def flatten(params: Mapping[str, Any], separator: str = "/") -> dict[str, Any]:
    """Return nested parameters as one level.

    Args:
        params: Plain data; mappings and the lists that hold mappings are opened.
        separator: Between the names of the levels.

    Returns:
        Path → value, in order; an empty mapping or list is a value.
    """
    flat: dict[str, Any] = {}

    def walk(path: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for key, item in value.items():
                walk(f"{path}{separator}{key}" if path else str(key), item)
        elif isinstance(value, (list, tuple)) and any(
            isinstance(item, (Mapping, list, tuple)) for item in value
        ):
            for number, item in enumerate(value):
                walk(f"{path}{separator}{number}", item)
        elif path:
            flat[path] = value

    walk("", params)
    return flat


def thaw(value: Any, *, odd_floats: bool = True) -> Any:
    """Return plain data as ``dict`` and ``list`` alone, which every tool knows.

    Args:
        value: Plain data; an event's is frozen.
        odd_floats: Whether NaN and infinities stay, or become texts.
    """
    if isinstance(value, Mapping):
        return {str(k): thaw(v, odd_floats=odd_floats) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [thaw(item, odd_floats=odd_floats) for item in value]
    if not odd_floats and isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
