"""What plotting costs: long curves, late epochs, many updates.

The limits are those that the documents promise; a result beyond one ends this
script with an error.
"""

from __future__ import annotations

import gc
import math
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import matplotlib.figure

from drytrack.core import log_events
from drytrack.trackers._mat_panels import render
from drytrack.trackers.matplotlib import MatPlotter
from drytrack.trackers.plotly import PlotlyPlotter

N_POINTS = 1_000_000
N_UPDATES = 500
ROUNDS = 15
Plotter = MatPlotter | PlotlyPlotter

failures: list[str] = []


def check(what: str, value: float, limit: float, unit: str) -> None:
    """Print a result beside its limit."""
    good = value <= limit
    print(f"{what:<58} {value:9.3f} {unit:<3} (limit {limit:g}) {'' if good else '!'}")
    if not good:
        failures.append(what)


def begin(plotter: Plotter, folder: pathlib.Path) -> None:
    """Let a plotter enter a run, without the bus."""
    import datetime

    now = datetime.datetime.now()
    plotter.notify(
        log_events.StartExperimentEvent.unpublished(
            {}, "Plots", now, "run", par_dir=folder
        )
    )


def add_epoch(plotter: Plotter, epoch: int) -> None:
    """Publish an epoch of four metrics from two sources."""
    for source in ("train", "validation"):
        metrics = {f"metric {n}": math.exp(-epoch / (n + 1)) for n in range(4)}
        plotter.notify(log_events.MetricEvent.unpublished("m", source, epoch, metrics))


def timed(action: Callable[[], object]) -> float:
    """Return how long something takes, in seconds."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def long_curves(folder: pathlib.Path) -> None:
    """Draw a curve of a million steps."""
    for plotter in (MatPlotter(formats=()), PlotlyPlotter(save="never")):
        begin(plotter, folder)
        for step in range(N_POINTS):
            event = log_events.StepMetricEvent.unpublished(
                "train", step, {"loss": math.sin(step / 1000)}, model_name="m"
            )
            plotter.notify(event)
        plotter.plot(first=-10)  # imports
        if isinstance(plotter, MatPlotter):
            draw = lambda: render(plotter.plot(), "png")  # noqa: B023, E731  # called at once
            check("matplotlib: a million points to PNG", timed(draw), 1.0, "s")
            smooth = lambda: render(plotter.plot(half_life=50), "png")  # noqa: B023, E731
            check("matplotlib: the same, smoothed", timed(smooth), 2.0, "s")
        else:
            check("plotly: a million points", timed(plotter.plot), 1.0, "s")


def late_epochs(folder: pathlib.Path) -> None:
    """Compare updates after 10 epochs with updates after 100, in turns."""
    for make in (MatPlotter, PlotlyPlotter):
        plotters: dict[int, Plotter] = {}
        for epochs in (10, 100):
            plotters[epochs] = plotter = make(folder / str(epochs))
            begin(plotter, folder)
            for epoch in range(1, epochs + 1):
                add_epoch(plotter, epoch)
            plotter._update()
        times: dict[int, list[float]] = {10: [], 100: []}
        for _ in range(ROUNDS):
            for epochs, plotter in plotters.items():
                add_epoch(plotter, epochs)
                times[epochs].append(timed(plotter._update))
        early, late = (statistics.median(times[epochs]) for epochs in (10, 100))
        name = make.__name__
        print(f"{name + ': an update after 10 epochs':<58} {early:9.3f} s")
        check(f"{name}: after 100 epochs, in times of it", late / early, 1.3, "x")


def many_updates(folder: pathlib.Path) -> None:
    """Look at memory, figures and file handles while updates go on."""
    try:
        import psutil
    except ImportError:
        print("Memory is not measured: pip install psutil")
        return
    process = psutil.Process()
    for make in (MatPlotter, PlotlyPlotter):
        plotter = make(folder / make.__name__)
        begin(plotter, folder)
        seen = []
        for update in range(1, N_UPDATES + 1):
            add_epoch(plotter, update % 100 + 1)
            plotter._update()
            if update in (N_UPDATES // 5, N_UPDATES):
                gc.collect()
                figures = sum(
                    isinstance(found, matplotlib.figure.Figure)
                    for found in gc.get_objects()
                )
                memory = process.memory_info().rss / 2**20
                handles = process.num_fds() if hasattr(process, "num_fds") else 0
                seen.append((memory, figures, handles))
        (memory, figures, handles), (memory_end, figures_end, handles_end) = seen
        name = f"{make.__name__}, {N_UPDATES} updates"
        check(f"{name}: memory gained since the 100th", memory_end - memory, 8, "MiB")
        check(f"{name}: figures gained", figures_end - figures, 0, "")
        check(f"{name}: file handles gained", handles_end - handles, 0, "")


def main() -> None:
    """Measure."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        long_curves(folder)
        late_epochs(folder)
        many_updates(folder)
    if failures:
        sys.exit(f"Beyond the limit: {', '.join(failures)}")


if __name__ == "__main__":
    main()
