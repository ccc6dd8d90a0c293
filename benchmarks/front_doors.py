"""What logging on the run costs, beside creating the event.

``run.log`` of five floats should cost at most 1.3 times the event, and on a rank
that does not track at most 0.3 µs; ``run.watch`` of 50 layers every 100 steps,
less than 1 % of a loop with 20 ms steps.
"""

from __future__ import annotations

import argparse
import tempfile
import time

from _measure import interleave, print_table

import drytrack
from drytrack import Experiment
from drytrack.core.log_events import StepMetricEvent
from drytrack.trackers.csv import CSVDumper

VALUES = {f"metric_{i}": 0.1 * i + 0.01 for i in range(5)}


def compare(title: str, *, record: bool, csv: bool = False) -> None:
    """Time ``run.log`` beside the event."""
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment(name="Benchmark", par_dir=folder)
        if csv:
            experiment.trackers.subscribe(CSVDumper())
        with experiment.create_run(record=record) as run:
            medians = interleave(
                {
                    f"{title}: StepMetricEvent(…)": lambda: StepMetricEvent(
                        "run", 1, VALUES
                    ),
                    f"{title}: run.log(…, step=1)": lambda: run.log(VALUES, step=1),
                    f"{title}: run.log(…)": lambda: run.log(VALUES),
                },
                number=2_000,
            )
    print_table(medians, next(iter(medians)))


def time_other_rank() -> None:
    """Time ``run.log`` where nobody tracks."""
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment(name="Benchmark", par_dir=folder)
        with experiment.create_run(rank=1) as run:
            medians = interleave(
                {"rank 1: run.log(…)": lambda: run.log(VALUES, step=1)}
            )
    print_table(medians, "rank 1: run.log(…)")


def time_watch(every: int = 100, step_s: float = 0.020) -> None:
    """Time the steps that a watch adds to, of a model with 50 layers."""
    import torch

    layers = [torch.nn.Linear(256, 256) for _ in range(50)]
    model = torch.nn.Sequential(*layers)
    inputs = torch.randn(8, 256)

    def step() -> float:
        began = time.perf_counter()
        model(inputs).mean().backward()
        return time.perf_counter() - began

    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment(name="Benchmark", par_dir=folder)
        with experiment.create_run() as run:
            for _ in range(50):
                step()
            for log in ("gradients", "parameters", "all"):
                plain = sorted(step() for _ in range(200))[100]
                watch = run.watch(model, log=log, every=1)
                full = sorted(step() for _ in range(50))[25] - plain
                watch.stop()
                watch = run.watch(model, log=log, every=10**9)
                idle = sorted(step() for _ in range(200))[100] - plain
                watch.stop()
                share = (full / every + max(idle, 0.0)) / step_s
                print(
                    f"watch {log:<11} {full * 1e3:6.2f} ms each time, "
                    f"{idle * 1e6:6.1f} µs in between: {share:.2%} of 20 ms steps"
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
