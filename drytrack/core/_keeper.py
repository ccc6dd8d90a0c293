"""The thread that keeps a run's record up to date, off the training thread."""

from __future__ import annotations

import pathlib
import threading
import time
from typing import TYPE_CHECKING, Any

from drytrack.core import _record
from drytrack.core._bell import Bell
from drytrack.core._environment import slow_environment

if TYPE_CHECKING:
    from drytrack.core._bus import Bus


STOP_TIMEOUT_S = 2.0
"""How long a stop waits for what is still being collected; a slow git is left."""


def progress(bus: Bus, steps: dict[str, int]) -> dict[str, Any]:
    """Return the entries of a record that change while a run goes on."""
    entries: dict[str, Any] = {"trackers": bus.kept()}
    journal = bus.journal
    if journal is not None:
        entries["journal"] = {
            "bytes": journal.size,
            "seq": journal.seq,
            "steps": dict(steps),
            "incomplete_from": journal.incomplete_from,
            "missing": [list(pair) for pair in journal.missing],
        }
    return entries


class Keeper:
    """Collects what takes long to collect, then checks in at intervals."""

    def __init__(
        self, record: _record.RecordWriter, bus: Bus, steps: dict[str, int]
    ) -> None:
        """Start the thread.

        Args:
            record: The record.
            bus: Whose progress it tells.
            steps: The last step of each source, changed by others.
        """
        self._record = record
        self._bus = bus
        self._steps = steps
        self._cwd = pathlib.Path.cwd()
        self._over = Bell()
        self._late: dict[str, Any] = {}
        self._promised = 0.0
        self._thread = threading.Thread(
            target=self._work, name="drytrack-record", daemon=True
        )
        self._thread.start()

    def promise(self, within_s: float) -> None:
        """Write a later check-in than the usual one at once."""
        self._promised = time.time() + within_s
        self._check_in()

    def stop(self) -> dict[str, Any]:
        """End the thread; return what it has collected."""
        self._over.ring()
        self._thread.join(timeout=STOP_TIMEOUT_S)
        return self._late

    def _work(self) -> None:
        self._late = self._collect()
        while not self._over.wait(_record.CHECK_IN_S):
            journal = self._bus.journal
            if journal is not None and journal.incomplete_from is not None:
                with self._bus.lock:
                    journal.settle()
            self._check_in()

    def _check_in(self) -> None:
        due = max(time.time() + _record.PROMISE_S, self._promised)
        journal = self._bus.journal
        self._record.write(
            quiet=journal is not None and journal.incomplete_from is not None,
            next_check_in=due,
            **progress(self._bus, self._steps),
        )

    def _collect(self) -> dict[str, Any]:
        late = slow_environment(self._cwd)
        git = late.get("git")
        journal = self._bus.journal
        if isinstance(git, dict) and "diff" in git and journal is not None:
            # A diff can be long, and the record is written often.
            text = str(git.pop("diff"))
            try:
                git["diff_blob"] = journal.put_blob(text.encode("utf-8", "replace"))
            except OSError as error:
                git["error"] = f"the diff cannot be kept: {error}"
        return late
