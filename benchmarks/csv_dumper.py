"""What `CSVDumper` takes from the training thread for one row of five metrics.

The yardstick is ``csv.writer(...).writerow(row)`` and a flush, for the same row.
"""

from __future__ import annotations

import csv
import datetime
import itertools
import pathlib
import random
import statistics
import tempfile
import time

from _measure import interleave, print_table

from drytrack.core import log_events
from drytrack.trackers.csv import CSVDumper

YARDSTICK = "csv.writer and flush"
LIMIT = 1.5


def _write_names(folder: pathlib.Path) -> float:
    """Return how long 10,000 metric names take, one in each event."""
    build = log_events.MetricEvent.unpublished
    events = [build("mlp", "train", n, {f"metric {n}": 0.5}) for n in range(10_000)]
    dumper = CSVDumper(folder)
    now = datetime.datetime.now()
    dumper.notify(log_events.StartExperimentEvent.unpublished({}, "bench", now, "run"))
    began = time.perf_counter()
    for event in events:
        dumper.notify(event)
    dumper.notify(log_events.StopExperimentEvent.unpublished("bench", "run"))
    return time.perf_counter() - began


def main() -> None:
    """Print the table; fail where a row costs too much."""
    draw = random.Random(0).random  # noqa: S311  # any digits will do
    metrics = {name: draw() for name in ("loss", "accuracy", "f1", "recall", "auc")}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        start = log_events.StartExperimentEvent.unpublished(
            {}, "bench", datetime.datetime.now(), "run", par_dir=path
        )
        dumper = CSVDumper()
        dumper.notify(start)
        epoch = log_events.MetricEvent.unpublished("mlp", "train", 7, metrics)
        step = log_events.StepMetricEvent.unpublished(
            "train", 7, metrics, model_name="mlp"
        )
        labelled = log_events.StepMetricEvent.unpublished(
            "train", 7, metrics, {"split": "val"}, "sample", "mlp"
        )
        others = itertools.cycle(
            log_events.MetricEvent.unpublished("mlp", f"source {n}", 7, metrics)
            for n in range(2)
        )
        row = [7, 1, 0, *metrics.values()]
        with (path / "yardstick.csv").open("w", newline="") as file:
            writer = csv.writer(file)

            def write_row() -> None:
                writer.writerow(row)
                file.flush()

            # What the bus calls: handlers, found once.
            on_epoch = dumper._find_handler(log_events.MetricEvent)
            on_step = dumper._find_handler(log_events.StepMetricEvent)
            assert on_epoch is not None
            assert on_step is not None
            medians = interleave(
                {
                    YARDSTICK: write_row,
                    "epoch metrics": lambda: on_epoch(epoch),
                    "step metrics": lambda: on_step(step),
                    "epoch metrics, two sources in turns": lambda: on_epoch(
                        next(others)
                    ),
                    "step metrics with a context": lambda: on_step(labelled),
                },
                rounds=51,
            )
        dumper.notify(log_events.StopExperimentEvent.unpublished("bench", "run"))
        taken = statistics.median(_write_names(path / str(n)) for n in range(5))
    print_table(medians, YARDSTICK)
    print(f"10,000 metric names, one for each event: {taken:.2f} s")
    worst = max(medians.values()) / medians[YARDSTICK]
    if worst > LIMIT or taken > 1:
        raise SystemExit(
            f"A row costs {worst:.2f} x the yardstick, names {taken:.2f} s."
        )


if __name__ == "__main__":
    main()
