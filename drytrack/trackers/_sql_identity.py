"""Who a run is, wherever and whenever it is written: its UUID."""

from __future__ import annotations

import dataclasses
import pathlib
import platform
import uuid
from typing import Any

from drytrack.core._record import read_record, run_folder
from drytrack.core.exceptions import RecordError
from drytrack.core.log_events import StartExperimentEvent


@dataclasses.dataclass(frozen=True)
class Identity:
    """What tells a run from all others.

    Attributes:
        uuid: The record's; of a run without a record, one that is made of its
            host, folder, names and time, so that it is the same each time.
        folder: The run's folder; None where it has none.
        created: When the run was created, in seconds since the epoch.
        parent_uuid: The run that it is a part of.
    """

    uuid: str
    folder: pathlib.Path | None
    created: float | None
    parent_uuid: str | None

    def read_record(self) -> dict[str, Any] | None:
        """Return what the record holds now; None where there is none."""
        if self.folder is None:
            return None
        try:
            return dict(read_record(self.folder).data)
        except RecordError:
            return None


def identify(start: StartExperimentEvent) -> Identity:
    """Return who the run of a start event is."""
    folder = run_folder(start.par_dir, start.exp_name, start.run_id)
    try:
        data = read_record(folder).data
    except RecordError:
        moment = getattr(start.run_ts, "timestamp", None)
        created = moment() if callable(moment) else None
        where = f"{platform.node()}:{start.par_dir.absolute()}"
        text = "\x1f".join((where, start.exp_name, start.run_id, str(start.run_ts)))
        made = uuid.uuid5(uuid.NAMESPACE_URL, text)
        return Identity(str(made), None, created, None)
    parent = data.get("parent")
    return Identity(
        uuid=str(data["uuid"]),
        folder=folder,
        created=data.get("created"),
        parent_uuid=parent["uuid"] if isinstance(parent, dict) else None,
    )
