"""``drytrack plot``."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from drytrack._frames import load
from drytrack._report_facts import name_runs
from drytrack.cli import _output
from drytrack.cli._curves import list_metrics
from drytrack.cli._options import RUN, Settings, common, fail, find_run
from drytrack.core._atomic import replace_file
from drytrack.trackers.base import MetricLoader, Series, SourcedMetrics

if TYPE_CHECKING:
    from drytrack.store import StoredRun
    from drytrack.trackers._plot_data import Panel
    from drytrack.trackers._plot_view import PlotOptions

SUFFIXES = ("html", "pdf", "png", "svg")


@click.command()
@click.argument("runs", nargs=-1, required=True, type=RUN, metavar="RUN...")
@click.option("--metric", multiple=True, help="This metric; repeat for several.")
@click.option("-o", "--output", help="A .png, .svg, .pdf or .html file.")
@click.option("--x", "axis", help="epoch, step or another axis; by default epoch.")
@click.option("--model", help="Of this model alone.")
@click.option("--source", multiple=True, help="Of this source; repeat for several.")
@click.option(
    "--smooth", type=float, metavar="N", help="Half-life, in epochs or steps."
)
@click.option("--log", is_flag=True, help="A logarithmic scale.")
@click.option("--mean", is_flag=True, help="The mean of the runs, with a band.")
@click.option(
    "--theme", type=click.Choice(["light", "dark"]), default="light", show_default=True
)
@common
def plot(
    settings: Settings,
    runs: tuple[str, ...],
    metric: tuple[str, ...],
    output: str | None,
    axis: str | None,
    model: str | None,
    source: tuple[str, ...],
    smooth: float | None,
    log: bool,
    mean: bool,
    theme: Literal["light", "dark"],
) -> None:
    """Draw curves of runs into a file, or onto the terminal.

    Without --metric, all of them. A file shows one model, an HTML page all.
    """
    path = None if output is None else pathlib.Path(output)
    if path is not None and path.suffix.lower().lstrip(".") not in SUFFIXES:
        msg = f"{output} is no .{', .'.join(SUFFIXES)} file. Name one of these."
        raise click.UsageError(msg)
    for package in ("numpy", "tsdownsample"):
        load(package, "plot", "drytrack plot")
    found = [find_run(settings, name) for name in dict.fromkeys(runs)]
    options: PlotOptions = {
        "metrics": metric,
        "sources": source,
        "log_scale": log,
        "half_life": smooth,
    }
    figures = _build(found, options, axis=axis, model=model, mean=mean)
    if not figures:
        fail(_say_known(found))
    if path is not None:
        _write(path, figures, theme)
        if settings.as_json:
            _output.print_json({"file": str(path), "figures": len(figures)})
        else:
            click.echo(f"Wrote {path}.")
    elif settings.as_json:
        _output.print_json([_as_json(panel) for panels in figures for panel in panels])
    else:
        from drytrack.cli._terminal import print_panels

        print_panels([panel for panels in figures for panel in panels])


class _Loader(MetricLoader):
    """Loads metrics of a stored run, and of those only what is asked for."""

    def __init__(self, run: StoredRun, names: Sequence[str]) -> None:
        self._run = run
        self._names = names

    def load_metrics(
        self, model_name: str, max_epoch: int = -1, *, axis: str = "epoch"
    ) -> SourcedMetrics:
        keys = self._run.series_keys(*self._names, model=model_name, axis=axis)
        loaded: SourcedMetrics = {}
        for key in keys:
            loaded.setdefault(key.source, {})[key.metric] = Series([], [])
        for key, steps, values in self._run.read_points(keys) if keys else ():
            series = loaded[key.source][key.metric]
            for step, value in zip(steps, values, strict=True):
                if max_epoch < 0 or step <= max_epoch:
                    series.steps.append(step)
                    series.values.append(value)
        return loaded


def _build(
    runs: Sequence[StoredRun],
    options: PlotOptions,
    *,
    axis: str | None,
    model: str | None,
    mean: bool,
) -> list[list[Panel]]:
    """Return the panels of each model that has some of the metrics."""
    from drytrack.trackers._plot_data import build_panels
    from drytrack.trackers._plot_view import make_view

    view = make_view(options)
    loaders = [_Loader(run, view.metrics) for run in runs]
    names = name_runs(runs)
    groups: Mapping[str, Sequence[MetricLoader]] = {"": loaders}
    if not mean and len(runs) > 1:
        groups = {name: [one] for name, one in zip(names, loaders, strict=True)}
    figures = []
    for of_model, on_axis in _places(runs, view.metrics, model, axis):
        loaded = {
            label: [loader.load_metrics(of_model, axis=on_axis) for loader in some]
            for label, some in groups.items()
        }
        title = " · ".join(filter(None, [of_model, names[0] if len(runs) == 1 else ""]))
        panels = build_panels(of_model, loaded, view, axis=on_axis, title=title)
        if panels:
            figures.append(panels)
    return figures


def _places(
    runs: Sequence[StoredRun],
    metrics: Sequence[str],
    model: str | None,
    axis: str | None,
) -> Iterator[tuple[str, str]]:
    """Yield each model that has such metrics, with the axis to draw them on."""
    axes: dict[str, dict[str, None]] = {}
    for run in runs:
        for key in run.series_keys(*metrics, model=model, axis=axis):
            axes.setdefault(key.model, {})[key.axis] = None
    for of_model, known in axes.items():
        # Epochs first, as plotters do.
        yield of_model, min(known, key=lambda one: (one != "epoch", one != "step"))


def _say_known(runs: Sequence[StoredRun]) -> str:
    some = f"Run {runs[0].id!r} has" if len(runs) == 1 else "The runs have"
    return f"{some} nothing of the kind to draw. Metrics: {list_metrics(runs)}."


def _write(
    path: pathlib.Path, figures: Sequence[list[Panel]], theme: Literal["light", "dark"]
) -> None:
    suffix = path.suffix.lower().lstrip(".")
    if suffix == "html":
        data = _draw_page(figures, theme).encode()
    elif len(figures) == 1:
        data = _draw_picture(figures[0], theme, suffix)
    else:
        listed = ", ".join(repr(panels[0].model) for panels in figures)
        msg = (
            f"A .{suffix} file shows one model, and there are {listed}. Name one with "
            f"--model, or write an .html file."
        )
        raise click.UsageError(msg)
    try:
        replace_file(path, data)
    except OSError as err:
        fail(f"{path} cannot be written: {err.strerror or err}.")


def _draw_picture(
    panels: Sequence[Panel], theme: Literal["light", "dark"], suffix: str
) -> bytes:
    from drytrack.trackers.matplotlib import MatPlotter

    plotter = MatPlotter(theme=theme)
    figure: Any = None
    for panel in panels:
        figure = plotter.plot_metric(panel, figure)
    from drytrack.trackers import _mat_panels

    return _mat_panels.render(figure, suffix)


def _draw_page(figures: Sequence[list[Panel]], theme: Literal["light", "dark"]) -> str:
    from drytrack.trackers.plotly import PlotlyPlotter

    plotter = PlotlyPlotter(theme=theme)
    drawn = []
    for panels in figures:
        figure: Any = None
        for panel in panels:
            figure = plotter.plot_metric(panel, figure)
        drawn.append(figure)
    from drytrack.trackers._plot_style import find_look
    from drytrack.trackers._plotly_panels import make_page

    title = " · ".join(dict.fromkeys(panels[0].title for panels in figures))
    return make_page(drawn, title, find_look(theme))


def _as_json(panel: Panel) -> dict[str, Any]:
    return {
        "model": panel.model,
        "metric": panel.metric,
        "axis": panel.axis,
        "curves": [
            {
                "label": curve.label,
                "steps": [int(step) for step in curve.steps],
                "values": curve.values.tolist(),
            }
            for curve in panel.curves
        ],
    }
