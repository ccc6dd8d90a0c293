"""Changing the record of a run from outside of it, and deleting a run.

The process of a running run replaces its record every few seconds from what it
has in memory, so a change made there would be lost. It is kept beside it, in
``edits.json``, which whoever reads a record puts over it; resuming the run, or
changing it when it has ended, moves the change into the record.
"""

from __future__ import annotations

import pathlib
import shutil
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from drytrack.core import _record
from drytrack.core._names import check_name
from drytrack.core.exceptions import EventValueError, RunHeldError, StorageError
from drytrack.store import TRASH

MAX_NOTES = 1_000_000
"""Characters of notes; the record is read whole by everyone who lists runs."""


def edit(folder: pathlib.Path, changes: Mapping[str, Any]) -> None:
    """Change what a run is called and labelled.

    Args:
        folder: The run's folder.
        changes: What `check` has returned.

    Raises:
        RecordError: If the record cannot be read.
        StorageError: If it cannot be written.
    """
    record = _record.read_record(folder)
    try:
        _record.check_free(record)
    except RunHeldError:
        _record.write_edits(folder, {**_record.read_edits(folder), **changes})
        return
    writer = _record.RecordWriter(folder, dict(record.data), _say_nothing)
    writer.write(must=True, **changes)
    (folder / _record.EDITS).unlink(missing_ok=True)


def check(
    *, name: str | None, notes: str | None, tags: Sequence[str] | None
) -> dict[str, Any]:
    """Return the entries of a record that are to be changed; what is None stays.

    Args:
        name: What the run is called; "" for its id.
        notes: Text about it.
        tags: All labels.

    Raises:
        InvalidNameError: If a name or tag cannot be kept.
        EventValueError: If the notes are too long.
    """
    changes: dict[str, Any] = {}
    if name is not None:
        changes["name"] = check_name(name, "run name") if name else None
    if notes is not None:
        if len(notes) > MAX_NOTES:
            msg = f"The notes have {len(notes)} characters. Keep at most {MAX_NOTES}."
            raise EventValueError(msg)
        changes["notes"] = notes
    if tags is not None:
        changes["tags"] = list(dict.fromkeys(check_name(tag, "tag") for tag in tags))
    return changes


def delete(folder: pathlib.Path) -> None:
    """Delete the folder of a run; nobody sees half of it.

    Args:
        folder: The run's folder.

    Raises:
        RunHeldError: If a living process holds the run.
        StorageError: If it cannot be deleted.
    """
    _record.check_free(_record.read_record(folder))
    # Out of the experiment first: a folder without a record would be a warning
    # to everyone who lists runs meanwhile.
    trash = folder.parent.parent / f"{TRASH}{uuid.uuid4().hex}"
    try:
        folder.rename(trash)
        shutil.rmtree(trash)
    except OSError as err:
        msg = f"{folder} cannot be deleted: {err.strerror or err}."
        raise StorageError(msg) from err


def _say_nothing(_: str) -> None:
    """Stand for what a running run is told; whoever edits gets an error."""
