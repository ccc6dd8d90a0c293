"""Draw the pictures of this folder: python docs/make_pictures.py [folder].

Each shows what a plotter makes of a run; the numbers are made up, from a seed.
"""

from __future__ import annotations

import io
import math
import pathlib
import random
import sys
import tempfile

from drytrack import Experiment, init_trackers
from drytrack.core import log_events
from drytrack.trackers.base import MemoryMetrics
from drytrack.trackers.matplotlib import MatPlotter

HERE = pathlib.Path(__file__).resolve().parent
MAX_BYTES = 100_000
METRICS = ["loss", "accuracy", "f1", "learning rate"]
METRICS += [f"layer {number}/gradient norm" for number in range(1, 22)]


def value(chance: random.Random, number: int, epoch: int, shift: float) -> float:
    """Return a value of a metric that falls, or rises, and levels out."""
    fallen = math.exp(-epoch / (6 + number % 7)) + shift
    noise = chance.gauss(0, 0.015)
    if number in (1, 2):
        return min(1 - 0.8 * fallen + noise, 1.0)
    return 0.05 + fallen + noise


def train(
    folder: pathlib.Path, *trackers: MatPlotter | MemoryMetrics, count: int = 4
) -> None:
    """Publish a run of 40 epochs with a number of metrics."""
    experiment = Experiment({}, name="Digits", par_dir=folder)
    experiment.trackers.subscribe(*trackers)
    chance = random.Random(count)
    with experiment.create_run(f"run-{len(list(folder.glob('**/record.json')))}"):
        for epoch in range(1, 41):
            for source, shift in (("train", 0.0), ("validation", 0.06)):
                metrics = {
                    name: value(chance, number, epoch, shift)
                    for number, name in enumerate(METRICS[:count])
                }
                log_events.MetricEvent("mlp", source, epoch, metrics)


def odd_values(folder: pathlib.Path, plotter: MatPlotter) -> None:
    """Publish a loss that is not always a number, over five powers of ten."""
    experiment = Experiment({}, name="Digits", par_dir=folder)
    experiment.trackers.subscribe(plotter)
    chance = random.Random(1)
    with experiment.create_run("odd"):
        for epoch in range(1, 61):
            for source, start in (("train", 40.0), ("validation", 90.0)):
                loss = start * math.exp(-epoch / 6) * chance.uniform(0.6, 1.5) + 1e-3
                if epoch in (14, 15, 30):
                    loss = math.nan
                if epoch == 41 and source == "train":
                    loss = math.inf
                if epoch == 50:
                    loss = 0.0
                log_events.MetricEvent("mlp", source, epoch, {"loss": loss})


def media(folder: pathlib.Path, plotter: MatPlotter) -> None:
    """Publish histograms, an image, a table and a figure."""
    import numpy as np
    from matplotlib.figure import Figure

    experiment = Experiment({}, name="Digits", par_dir=folder)
    experiment.trackers.subscribe(plotter)
    chance = np.random.default_rng(0)
    with experiment.create_run("media"):
        for step in range(0, 500, 50):
            weights = chance.normal(step / 1000, 1 - step / 800, 5_000)
            counts, edges = np.histogram(weights, bins=40)
            log_events.HistogramEvent("trainer", "weights", step, counts, edges)
        y, x = np.mgrid[0:64, 0:96]
        image = np.stack([x / 95, y / 63, 0.5 + 0.5 * np.sin(x / 9)], axis=-1)
        log_events.ImageEvent("trainer", "sample", 450, image, caption="a gradient")
        rows = [[digit, 0.9 + digit / 200, 170 + digit] for digit in range(10)]
        columns = ["digit", "recall", "support"]
        log_events.TableEvent("test", "recall by digit", 450, columns, rows)
        figure = Figure(figsize=(4, 3))
        figure.add_subplot().imshow(chance.random((10, 10)), cmap="viridis")
        log_events.FigureEvent("test", "confusion", 450, figure)


def seeds(folder: pathlib.Path) -> dict[str, list[MemoryMetrics]]:
    """Return five runs each of two optimizers."""
    groups: dict[str, list[MemoryMetrics]] = {}
    for label, speed in (("adam", 8.0), ("sgd", 16.0)):
        for seed in range(5):
            chance = random.Random(seed)
            metrics = MemoryMetrics()
            experiment = Experiment({}, name=label, par_dir=folder)
            experiment.trackers.subscribe(metrics)
            drift = chance.uniform(0.8, 1.25)
            with experiment.create_run(f"seed-{seed}"):
                for epoch in range(1, 61):
                    loss = math.exp(-epoch / speed / drift) + chance.uniform(0, 0.05)
                    log_events.MetricEvent("mlp", "train", epoch, {"loss": loss})
            groups.setdefault(label, []).append(metrics)
    return groups


def shrink(data: bytes) -> bytes:
    """Return a PNG file with a palette in place of full colors."""
    from PIL import Image

    shrunk = io.BytesIO()
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    picture.quantize(256).save(shrunk, "PNG", optimize=True)
    return shrunk.getvalue()


def main() -> None:
    """Draw all pictures."""
    target = pathlib.Path(sys.argv[1]) if sys.argv[1:] else HERE / "pictures"
    target.mkdir(parents=True, exist_ok=True)
    init_trackers("none")

    def save(plotter: MatPlotter, name: str, figure: object = None) -> None:
        from drytrack.trackers._mat_panels import render

        data = render(figure or plotter.plot(), "png", dpi=80)
        if "media" not in name:  # its image needs all colors
            data = shrink(data)
        if len(data) > MAX_BYTES:
            sys.exit(f"{name}.png has {len(data):,} bytes; the limit is {MAX_BYTES:,}.")
        (target / f"{name}.png").write_bytes(data)
        print(f"{name}.png {len(data):,} bytes")

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for theme in ("light", "dark"):
            for count in (1, 4, 9, 25):
                plotter = MatPlotter(formats=(), theme=theme)
                train(folder, plotter, count=count)
                save(plotter, f"curves-{count}-{theme}")
            plotter = MatPlotter(formats=(), theme=theme)
            odd_values(folder / theme, plotter)
            save(plotter, f"gaps-{theme}")
            save(plotter, f"log-{theme}", plotter.plot(log_scale=True, half_life=3))
            groups = seeds(folder / theme)
            bands = plotter.plot("mlp", runs=groups, units={"loss": "nats"})
            save(plotter, f"seeds-{theme}", bands)
            media(folder / theme, plotter)
            save(plotter, f"media-{theme}", plotter.plot_media()[0])
        small = MatPlotter(formats=(), size=(4.0, 3.0))
        train(folder, small, count=4)
        save(small, "small")


if __name__ == "__main__":
    main()
