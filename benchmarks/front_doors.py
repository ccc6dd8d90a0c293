"""What logging on the run costs, beside creating the event.

``run.log`` of five floats should cost at most 1.3 times the event, and on a rank
that does not track at most 0.3 µs; ``run.watch`` of 50 layers every 100 steps,
less than 1 % of a loop with 20 ms steps.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time

from _measure import interleave, print_table

import drytrack
from drytrack import Experiment
from drytrack.core.log_events import StepMetricEvent
from drytrack.trackers.csv import CSVDumper

VALUES = {f"metric_{i}": 0.1 * i + 0.01 for i in range(5)}


def compare(title: str, *, record: bool, csv: bool = False) -> None:
    """Time ``run.log`` beside the event, with steps that ascend."""
    steps = itertools.count()
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment({"lr": 0.1}, name="Benchmark", par_dir=folder)
        if csv:
            experiment.trackers.subscribe(CSVDumper())
        with experiment.create_run(record=record) as run:
            medians = interleave(
                {
                    f"{title}: StepMetricEvent(…)": lambda: StepMetricEvent(
                        "run", next(steps), VALUES
                    ),
                    f"{title}: run.log(…, step=i)": lambda: run.log(
                        VALUES, step=next(steps)
                    ),
                    f"{title}: run.log(…)": lambda: run.log(VALUES),
                },
                number=2_000,
            )
    print_table(medians, next(iter(medians)))


def time_other_rank() -> None:
    """Time ``run.log`` where nobody tracks."""
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment({"lr": 0.1}, name="Benchmark", par_dir=folder)
        with experiment.create_run(rank=1) as run:
            medians = interleave(
                {"rank 1: run.log(…)": lambda: run.log(VALUES, step=1)}
            )
    print_table(medians, "rank 1: run.log(…)")


def time_watch(every: int = 100, step_s: float = 0.020, rounds: int = 10) -> None:
    """Time what a watch adds to the steps of a model with 50 layers.

    Processor time of one thread, in turns, so that other programs do not count.
    """
    import torch

    torch.set_num_threads(1)
    model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(50)))
    inputs = torch.randn(8, 256)

    def step() -> float:
        began = time.thread_time()
        model(inputs).mean().backward()
        return time.thread_time() - began

    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment({"lr": 0.1}, name="Benchmark", par_dir=folder)
        with experiment.create_run() as run:
            for _ in range(50):
                step()
            for log in ("gradients", "parameters", "all"):
                taken: dict[int, list[float]] = {0: [], 1: [], 10**9: []}
                for _ in range(rounds):
                    for interval, times in taken.items():
                        watch = run.watch(model, log, interval) if interval else None
                        times += [step() for _ in range(20)]
                        if watch is not None:
                            watch.stop()
                plain, full, idle = map(statistics.median, taken.values())
                share = ((full - plain) / every + max(idle - plain, 0.0)) / step_s
                print(
                    f"watch {log:<11} {(full - plain) * 1e3:6.2f} ms each time, "
                    f"{(idle - plain) * 1e6:6.1f} µs in between: "
                    f"{share:.2%} of {step_s * 1e3:g} ms steps"
                )


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watch", action="store_true", help="needs torch")
    arguments = parser.parse_args()
    drytrack.init_trackers("none")
    compare("nobody listens", record=False)
    compare("journal", record=True)
    compare("journal and CSV", record=True, csv=True)
    time_other_rank()
    if arguments.watch:
        time_watch()


if __name__ == "__main__":
    main()
