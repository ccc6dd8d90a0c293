"""The record of a run: ``record.json``, and who holds the run.

``<par_dir>/.drytrack/<experiment>/<run_id>/`` belongs to one run. Its record
is replaced atomically, at the edges of the run's life and by a timer. Who
creates ``attempts/<n>`` holds the run; there is no other lock and no index.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import pathlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from drytrack.core._atomic import create_exclusively, replace_file
from drytrack.core._process import ProcessId, is_alive, this_process
from drytrack.core._warn import warn
from drytrack.core.exceptions import (
    RecordError,
    RecordWarning,
    RunExistsError,
    RunHeldError,
    StorageError,
)

SCHEMA = 1
"""Version of the record's format; a newer one is refused."""

FOLDER = ".drytrack"
RECORD = "record.json"
RESERVE = ".reserve"
RESERVE_BYTES = 32 * 1024
"""Room for a last record on a disk that the journal has filled."""

CHECK_IN_S = 10.0
"""How often a running process says that it lives."""

PROMISE_S = 60.0
"""How long after a check-in the next one may take; then the run is stalled."""

ENDED = ("completed", "failed", "interrupted")

EDITS = "edits.json"
"""Changes to ``name``, ``notes`` and ``tags`` from outside of a running run."""


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What is on disk about one run, as of when it was read.

    Attributes:
        path: The run's folder.
        data: The content of ``record.json``.
        status: ``created``, ``running``, ``completed``, ``failed`` or
            ``interrupted`` as recorded; ``crashed`` where the process is gone,
            ``stalled`` where its promised check-in is overdue.
    """

    path: pathlib.Path
    data: Mapping[str, Any] = dataclasses.field(repr=False)
    status: str

    @property
    def id(self) -> str:
        """Id of the run, unique in its experiment."""
        return str(self.data["id"])

    @property
    def uuid(self) -> str:
        """Id of the run, unique in the world."""
        return str(self.data["uuid"])

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return str(self.data["experiment"])

    @property
    def attempt(self) -> int:
        """Number of the newest attempt, from 1; 0 before the first start."""
        return newest_attempt(self.data["attempts"])

    @property
    def error(self) -> Mapping[str, str] | None:
        """Type, message and traceback of what ended the run, or None."""
        error: Mapping[str, str] | None = self.data.get("error")
        return error

    @property
    def tags(self) -> list[str]:
        """Labels of the run."""
        return list(self.data.get("tags", ()))


def run_folder(par_dir: pathlib.Path, experiment: str, run_id: str) -> pathlib.Path:
    """Return the folder of a run."""
    return par_dir / FOLDER / experiment / run_id


def make_run_folder(par_dir: pathlib.Path, data: Mapping[str, Any]) -> pathlib.Path:
    """Create the folder of a new run, with its record in it from the first moment.

    Args:
        par_dir: The experiment's folder.
        data: The record.

    Raises:
        RunExistsError: If it exists.
        StorageError: If it cannot be created.
    """
    experiment, run_id = str(data["experiment"]), str(data["id"])
    folder = run_folder(par_dir, experiment, run_id)
    # No run can be called so: ids do not begin with a space.
    beside = folder.with_name(f" {os.getpid()}-{time.monotonic_ns()}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        ignore = par_dir / FOLDER / ".gitignore"
        if not ignore.exists():
            replace_file(ignore, b"*\n")
        if not folder.exists():
            (beside / "attempts").mkdir(parents=True)
            (beside / RECORD).write_bytes(_encode(data))
            with contextlib.suppress(FileExistsError, PermissionError):  # told below
                if _rename(beside, folder):
                    return folder
    except OSError as err:  # a file where a folder should be, among others
        raise storage_error(folder, err) from err
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    if not folder.is_dir():
        raise storage_error(folder, FileExistsError("a file is in its place"))
    msg = (
        f"Run {run_id!r} of experiment {experiment!r} exists in {folder.parent}. "
        f"Go on with it: create_run({run_id!r}, resume=True); or choose another id."
    )
    raise RunExistsError(msg)


def _rename(source: pathlib.Path, target: pathlib.Path) -> bool:
    """Move a folder to a name that is free; return whether it was."""
    try:
        source.rename(target)
    except OSError as err:
        if err.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False  # somebody else was faster
        raise
    return True


def _encode(data: Mapping[str, Any]) -> bytes:
    text = json.dumps(tag_non_finite(data), indent=1, ensure_ascii=False)
    return text.encode("utf-8", "replace")


def storage_error(folder: pathlib.Path, err: OSError) -> StorageError:
    msg = (
        f"The run's folder {folder} cannot be written: {err.strerror or err}. Pass "
        f"another par_dir, set DRYTRACK_DIR, or run without a record: "
        f"create_run(record=False)."
    )
    return StorageError(msg)


def read_record(folder: pathlib.Path) -> RunRecord:
    """Read the record of a run.

    Raises:
        RecordError: If it is missing, damaged, or newer than this version.
    """
    path = folder / RECORD
    try:
        data = json.loads(path.read_bytes())
        schema = data["schema"]
        if isinstance(schema, int) and schema > SCHEMA:
            msg = (
                f"{path} was written by a newer drytrack (format {schema}, this one "
                f"reads up to {SCHEMA}). Update drytrack: pip install -U drytrack."
            )
            raise RecordError(msg)  # noqa: TRY301  # passed on below
        if not isinstance(data["attempts"], list):
            raise TypeError("attempts is no list")  # noqa: TRY301  # reported below
        for key in ("id", "uuid", "experiment", "status"):
            if not isinstance(data[key], str):
                raise TypeError(f"{key} is no text")  # noqa: TRY301  # reported below
    except RecordError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as err:
        msg = (
            f"{path} is missing or damaged ({type(err).__name__}: {err}). Start a new "
            f"run; `drytrack doctor` rebuilds a record from the run's journal."
        )
        raise RecordError(msg) from err
    data.update(read_edits(folder))
    return RunRecord(folder, data, _read_status(folder, data))


def read_edits(folder: pathlib.Path) -> dict[str, Any]:
    """Return what was changed while the run was running; damage changes nothing."""
    try:
        data = json.loads((folder / EDITS).read_bytes())
        return {key: data[key] for key in ("name", "notes", "tags") if key in data}
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def write_edits(folder: pathlib.Path, changes: Mapping[str, Any]) -> None:
    """Keep changes beside the record, which the running process replaces.

    Raises:
        StorageError: If they cannot be written.
    """
    text = json.dumps(changes, indent=1, ensure_ascii=False)
    try:
        replace_file(folder / EDITS, text.encode("utf-8", "replace"))
    except OSError as err:
        raise storage_error(folder, err) from err


def read_records(par_dir: pathlib.Path, experiment: str) -> Iterator[RunRecord]:
    """Read the records of an experiment's runs, oldest first.

    A record that cannot be read is reported by a `RecordWarning` and left out.
    """
    base = par_dir / FOLDER / experiment
    found = []
    try:
        folders = [
            folder
            for folder in base.iterdir()
            if folder.is_dir() and not folder.name.startswith(" ")  # half-made
        ]
    except FileNotFoundError:
        return
    for folder in folders:
        try:
            record = read_record(folder)
        except RecordError as err:
            warn(str(err), RecordWarning)
            continue
        found.append((record.data.get("created", 0.0), record.id, record))
    found.sort(key=lambda item: item[:2])
    for _, _, record in found:
        yield record


def _read_status(folder: pathlib.Path, data: Mapping[str, Any]) -> str:
    status = str(data["status"])
    if status != "running":
        return status
    holder = _holder(folder, newest_attempt(data["attempts"]))
    alive = is_alive(holder) if holder is not None else None
    if alive is False:
        return "crashed"
    overdue = time.time() > float(data.get("next_check_in", math.inf))
    return "stalled" if overdue else "running"


def _holder(folder: pathlib.Path, attempt: int) -> ProcessId | None:
    try:
        data = json.loads((folder / "attempts" / str(attempt)).read_bytes())
        return ProcessId.from_dict(data["process"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def newest_attempt(entries: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of the newest attempt in a record; 0 before the first.

    A process that was killed on its way in has left a number and no entry.
    """
    return int(entries[-1].get("attempt", len(entries))) if entries else 0


def last_attempt(folder: pathlib.Path) -> int:
    """Return the newest number that was ever taken; 0 before the first."""
    try:
        names = [entry.name for entry in (folder / "attempts").iterdir()]
    except FileNotFoundError:
        return 0
    return max((int(name) for name in names if name.isdecimal()), default=0)


def check_free(record: RunRecord) -> None:
    """Refuse a run that a living process holds.

    Raises:
        RunHeldError: If somebody holds it.
    """
    last = last_attempt(record.path)
    ended = last <= record.attempt and record.data["status"] in ENDED
    if last == 0 or ended:
        return
    holder = _holder(record.path, last)
    alive = is_alive(holder) if holder is not None else None
    due = float(record.data.get("next_check_in", 0.0))
    if alive is False or (alive is None and time.time() > due):
        return
    who = f"process {holder.pid} on {holder.host}" if holder else "another process"
    msg = (
        f"Run {record.id!r} of experiment {record.experiment!r} is held by {who}. "
        f"Wait until it ends, or stop it."
    )
    if alive is None and math.isfinite(due):
        until = time.strftime("%H:%M:%S", time.localtime(due))
        msg += f" If it is dead, the run can be resumed after {until}."
    raise RunHeldError(msg)


def claim(folder: pathlib.Path, attempt: int, run_id: str) -> None:
    """Take hold of a run for a new attempt.

    Raises:
        RunHeldError: If somebody else was faster.
        StorageError: If the folder cannot be written.
    """
    content = {"process": this_process().to_dict(), "time": time.time()}
    try:
        create_exclusively(
            folder / "attempts" / str(attempt), json.dumps(content).encode()
        )
    except FileExistsError as err:
        msg = (
            f"Attempt {attempt} of run {run_id!r} was taken by another process a "
            f"moment ago. Wait until it ends, or start a run of your own."
        )
        raise RunHeldError(msg) from err
    except OSError as err:
        raise storage_error(folder, err) from err


class RecordWriter:
    """Keeps the record of a running run up to date.

    Safe to call from any thread. A failure to write is reported once, and
    again only after a success: the run goes on.
    """

    def __init__(
        self, folder: pathlib.Path, data: dict[str, Any], tell: Callable[[str], None]
    ) -> None:
        """Take over the content; nothing is written yet.

        Args:
            folder: The run's folder.
            data: The content.
            tell: Called, from whatever thread, with what to say of a failure.
        """
        self.folder = folder
        self.data = data
        self._tell = tell
        self._lock = threading.Lock()
        self._failing = False

    def write(self, *, must: bool = False, quiet: bool = False, **changes: Any) -> None:
        """Change some entries and replace the file.

        Args:
            must: Whether a failure is an error, as before the run's start.
            quiet: Whether nothing is said of a failure, where it is known already.
            **changes: Entries to set.

        Raises:
            StorageError: If ``must`` and the file cannot be written.
        """
        with self._lock:
            self.data.update(changes)
            self.data["updated"] = time.time()
            try:
                self._replace()
            except OSError as err:
                if must:
                    raise storage_error(self.folder, err) from err
                failed_before, self._failing = self._failing, True
                problem = err
            else:
                self._failing = False
                return
        if not failed_before and not quiet:
            self._tell(
                f"{self.folder / RECORD} cannot be written: {problem}. The run "
                f"goes on; its record is written again when it can be."
            )

    def _replace(self) -> None:
        """Replace the file.

        Where there is no room for it, the last record of the attempt gets what was
        set aside: without that, a run that has ended would read as crashed.
        """
        reserve = self.folder / RESERVE
        data = _encode(self.data)
        try:
            replace_file(self.folder / RECORD, data)
        except OSError:
            if self.data["status"] not in ENDED or not reserve.exists():
                raise
            reserve.unlink()
            replace_file(self.folder / RECORD, data)
            return
        if self.data["status"] in ENDED:
            reserve.unlink(missing_ok=True)
        elif not reserve.exists():
            with contextlib.suppress(OSError):  # then there is no room to set aside
                # Not zeros, which some file systems keep for nothing.
                replace_file(reserve, os.urandom(RESERVE_BYTES))


def tag_non_finite(value: Any) -> Any:
    """Return plain data in which NaN and ±inf are objects that JSON knows."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if isinstance(value, dict):
        return {key: tag_non_finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [tag_non_finite(item) for item in value]
    return value
