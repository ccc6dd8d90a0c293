"""A training process to be killed: it publishes, and says what has returned.

    python journal_child.py FOLDER

For each event whose constructor has returned, its number is written to standard
output. The trackers write a line for each event to a file, and know the last one.
"""

from __future__ import annotations

import os
import pathlib
import sys

from drytrack import Experiment, Tracker, init_trackers
from drytrack.core import log_events
from drytrack.trackers.csv import CSVDumper
from drytrack.trackers.sqlalchemy import SQLConnection


class Lines(Tracker):
    """Writes the number of each event to a file of its name."""

    notify = Tracker.notify.extend()

    def __init__(self, name, *, background):
        self.name = name
        self.background = background

    @notify.register
    def _open_file(self, event: log_events.StartExperimentEvent) -> None:
        self._path = event.par_dir / f"{self.name}.txt"
        # Unbuffered: a line is with the kernel, or it was never written.
        self._file = self.enter_context(self._path.open("ab", buffering=0))

    @notify.register
    def _write(self, event: log_events.StepMetricEvent) -> None:
        self._file.write(b"%d\n" % event.stamp.seq)

    @notify.register
    def _write_text(self, event: log_events.TextEvent) -> None:
        self._file.write(b"%d\n" % event.stamp.seq)

    def last_seq(self):
        return max(self.numbers(self._path), default=0)

    @staticmethod
    def numbers(path):
        return [int(line) for line in path.read_bytes().split()]


def make_experiment(par_dir):
    """Make the experiment whose run is killed and resumed."""
    init_trackers("none")
    experiment = Experiment({"lr": 0.1}, name="E", par_dir=par_dir)
    experiment.trackers.subscribe(
        CSVDumper(),
        SQLConnection(f"sqlite:///{par_dir / 'runs.db'}"),
        inline=Lines("inline", background=False),
        behind=Lines("behind", background=True),
    )
    return experiment


def publish(number):
    """Publish one event, now and then a long one; return its number in the run."""
    if number % 50 == 0:
        event = log_events.TextEvent("trainer", "note", number, "x" * 20_000)
    else:
        event = log_events.StepMetricEvent("trainer", number, {"loss": number / 7})
    return event.stamp.seq


def main():
    """Publish until somebody ends it."""
    with make_experiment(pathlib.Path(sys.argv[1])).create_run("a", resume="auto"):
        number = 0
        while True:
            number += 1
            os.write(1, b"%d\n" % publish(number))


if __name__ == "__main__":
    main()
