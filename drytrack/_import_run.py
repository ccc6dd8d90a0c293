"""Making a recorded run of what another tool has written: record, journal, times.

A run is written beside the others and moved among them when it is whole. Its
UUID comes from what the other tool calls it, and its journal from nothing but
what the tool has kept, so that a repeated import finds out that nothing is new.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from drytrack import _edits
from drytrack._import_journal import ForeignJournal
from drytrack.core import _record
from drytrack.core._atomic import replace_file
from drytrack.core._names import MAX_FOLDER_BYTES, check_folder_name, check_name
from drytrack.core.exceptions import (
    InvalidNameError,
    RecordError,
    RunExistsError,
    StorageError,
)
from drytrack.core.run import new_record
from drytrack.store import TRASH

if TYPE_CHECKING:
    from drytrack._import_model import ForeignRun


class Imported(NamedTuple):
    """What an import has made.

    Attributes:
        run: Experiment and id of the run.
        outcome: ``made``; ``unchanged`` where it was imported before and nothing
            is new; ``renewed`` where something is.
        metrics: The metrics, in the order of their first points.
        events: How many events the journal holds.
        points: How many values.
        left_out: What cannot be kept, by kind, and how much of it.
    """

    run: str
    outcome: Literal["made", "unchanged", "renewed"]
    metrics: list[str]
    events: int
    points: int
    left_out: dict[str, int]


def record_run(
    found: ForeignRun,
    par_dir: pathlib.Path,
    *,
    experiment: str | None = None,
    tags: Sequence[str] = (),
) -> Imported:
    """Record a run of another tool.

    Args:
        found: The run.
        par_dir: Where to record it.
        experiment: Name of the experiment, by default the tool's.
        tags: Labels besides the tool's.

    Raises:
        RunExistsError: If there is another run of that name.
        RunHeldError: If it was imported before, and is held by a process.
        StorageError: If it cannot be written.
        InvalidNameError: If a name cannot be kept.
    """
    name = check_folder_name(
        experiment or to_folder_name(found.experiment), "experiment name"
    )
    run_id = check_folder_name(to_folder_name(found.run_id), "run id")
    folder = _record.run_folder(par_dir, name, run_id)
    unique = str(make_uuid(found.tool, found.key))
    previous = _find_previous(folder, unique)
    labels = [check_name(tag, "tag") for tag in (*found.tags, *tags)]
    # Where doctor clears away what was cut off.
    beside = par_dir / _record.FOLDER / f"{TRASH}{uuid.uuid4().hex}"
    try:
        (beside / "attempts").mkdir(parents=True)
        start = {
            "exp_name": name,
            "run_id": run_id,
            "par_dir": par_dir,
            "tags": labels,
        }
        written = ForeignJournal(beside, found, start)
        same = previous is not None and (
            previous.data["imported"]["sha256"] == written.sha256
        )
        if not same:
            data = _make_record(found, written, unique, start, previous)
            text = json.dumps(
                _record.tag_non_finite(data), indent=1, ensure_ascii=False
            )
            (beside / _record.RECORD).write_bytes(text.encode("utf-8", "replace"))
            ignore = par_dir / _record.FOLDER / ".gitignore"
            if not ignore.exists():
                replace_file(ignore, b"*\n")
            folder.parent.mkdir(exist_ok=True)
            if previous is not None:
                _edits.delete(folder)
            beside.rename(folder)
    except StorageError:
        raise
    except OSError as err:
        raise _record.storage_error(folder, err) from err
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        with contextlib.suppress(OSError):  # unless there is something in it
            beside.parent.rmdir()
    return Imported(
        f"{name}/{run_id}",
        "unchanged" if same else "renewed" if previous is not None else "made",
        list(written.metrics),
        written.seq,
        written.points,
        found.left_out,
    )


def make_uuid(tool: str, key: str) -> uuid.UUID:
    """Return the UUID of another tool's run, the same each time."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"drytrack:{tool}:{key}")


def to_folder_name(text: str) -> str:
    """Return a name that can be a folder's, as near to the text as may be."""
    try:
        return check_folder_name(text, "name")
    except InvalidNameError:
        plain = re.sub(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|]+', "-", text).strip(" .-")
        cut = plain.encode()[: MAX_FOLDER_BYTES - 20].decode(errors="ignore").rstrip()
        # A word that Windows keeps for itself is none with something behind it.
        return cut if cut and _fits(cut) else f"{cut}_"


def _fits(text: str) -> bool:
    try:
        check_folder_name(text, "name")
    except InvalidNameError:
        return False
    return True


def _find_previous(folder: pathlib.Path, unique: str) -> _record.RunRecord | None:
    """Return the record of an earlier import; refuse a run of another origin."""
    if not folder.exists():
        return None
    try:
        record = _record.read_record(folder)
    except RecordError:
        record = None
    if record is None or record.uuid != unique or "imported" not in record.data:
        msg = (
            f"Run {folder.name!r} of experiment {folder.parent.name!r} exists in "
            f"{folder.parent}, and was not imported from here. Name another "
            f"experiment: --experiment NAME."
        )
        raise RunExistsError(msg)
    if record.attempt > len(record.data["imported"]["attempts"]):
        msg = (
            f"Run {folder.name!r} of experiment {folder.parent.name!r} has gone on "
            f"since it was imported. Name another experiment: --experiment NAME."
        )
        raise RunExistsError(msg)
    return record


def _make_record(
    found: ForeignRun,
    written: ForeignJournal,
    unique: str,
    start: Mapping[str, Any],
    previous: _record.RunRecord | None,
) -> dict[str, Any]:
    """Return the record; what people have changed since an earlier import stays."""
    kept = previous.data if previous is not None else {}
    tags = dict.fromkeys((*kept.get("tags", ()), *start["tags"]))
    record = new_record(
        start["exp_name"],
        start["run_id"],
        uuid=unique,
        created=written.created,
        name=kept.get("name") or found.name,
        notes=kept.get("notes") or found.notes,
        tags=list(tags),
        description=None,
        attempts=written.attempts,
        status=written.attempts[-1]["status"],
        summary=written.summary,
        journal={
            "bytes": written.size,
            "seq": written.seq,
            "steps": written.steps,
            "incomplete_from": None,
            "missing": [],
        },
        imported={
            "tool": found.tool,
            "from": found.place,
            "key": found.key,
            "sha256": written.sha256,
            "attempts": [entry["attempt"] for entry in written.attempts],
        },
    )
    if found.parent is not None:
        run_id, key = found.parent
        record["parent"] = {"id": run_id, "uuid": str(make_uuid(found.tool, key))}
    return record
