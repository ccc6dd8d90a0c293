"""Tracker that draws learning curves with plotly."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal, Unpack

from drytrack.core import log_events
from drytrack.core._atomic import replace_file
from drytrack.trackers._notebook import is_notebook
from drytrack.trackers._plot_style import find_look
from drytrack.trackers._plotter import BasePlotter
from drytrack.trackers.base import Dumper, MetricLoader

if TYPE_CHECKING:
    import os

    from plotly.graph_objects import Figure

    from drytrack.trackers._plot_data import Panel
    from drytrack.trackers._plot_view import PlotOptions

__all__ = ["PlotlyPlotter"]


class PlotlyPlotter(BasePlotter["Figure"], Dumper):
    """Draws one interactive figure for each model, one panel for each metric.

    It writes one page, ``plots.html`` in the run's folder, with the curves of
    all models and the newest histograms, images, tables and figures. The page
    holds plotly itself (about 5 MB) and works without a network.

    In a notebook the figures appear below the cell and change there: as
    widgets where anywidget is installed, redrawn where it is not.
    """

    name = "plotly"
    folder_name = "plotly"
    packages = ("plotly", "numpy", "tsdownsample")
    notify = BasePlotter.notify.extend(Dumper.notify)

    def __init__(
        self,
        par_dir: str | os.PathLike[str] | None = None,
        *,
        save: Literal["end", "update", "never"] = "end",
        theme: Literal["light", "dark"] = "light",
        in_notebook: bool = True,
        open_browser: bool = False,
        models: str | Collection[str] = (),
        metric_loader: MetricLoader | None = None,
        every_s: float = 2.0,
        **options: Unpack[PlotOptions],
    ) -> None:
        """Choose where and how to draw.

        Args:
            par_dir: Where the page is written, by default the experiment's.
            save: When it is written: at the end of the run, at each update as
                well, or never.
            theme: ``"light"`` or ``"dark"``.
            in_notebook: Whether figures are shown where there is a notebook.
            open_browser: Whether the page is opened in a browser at the end.
            models: As for `BasePlotter`.
            metric_loader: As for `BasePlotter`.
            every_s: As for `BasePlotter`.
            **options: As for `BasePlotter`.

        Raises:
            ConfigurationError: If an option cannot be.
            MissingDependencyError: If a package is not installed.
        """
        super().__init__(
            models=models, metric_loader=metric_loader, every_s=every_s, **options
        )
        Dumper.__init__(self, par_dir)
        self._look = find_look(theme)
        self._save = save
        self._in_notebook = in_notebook
        self._open_browser = open_browser

    def plot_metric(self, panel: Panel, figure: Figure | None) -> Figure:
        """Add one panel to a model's figure; see `BasePlotter.plot_metric`."""
        from drytrack.trackers import _plotly_panels

        return _plotly_panels.draw_panel(panel, figure, self._look)

    def plot_media(self) -> list[Figure]:
        """Return a figure for each medium that was published beside metrics."""
        from drytrack.trackers import _plotly_panels

        return [_plotly_panels.draw_medium(m, self._look) for m in self._media()]

    # -- live --------------------------------------------------------------------

    def _begin_output(self, event: log_events.StartExperimentEvent) -> None:
        self._shown: dict[tuple[str, object], Any] = {}

    def update_model(self, model: str, figure: Figure) -> None:
        """Show a figure that has been drawn anew."""
        self._show(("model", model), figure)

    def update_media(self) -> None:
        """Show histograms, images, tables and figures."""
        if self._in_notebook and is_notebook():
            for number, figure in enumerate(self.plot_media()):
                self._show(("medium", number), figure, as_widget=False)

    def end_update(self) -> None:
        """Write the page, if it is to be written each time."""
        if self._save == "update":
            self._write()

    def end_plots(self) -> None:
        """Write the page."""
        if self._save == "end":
            self._write()
        path = self.run_dir / "plots.html"
        if self._open_browser and path.exists():
            import webbrowser

            webbrowser.open(path.as_uri())

    def clean_up(self) -> None:
        """Let go of figures; what a notebook shows stays there."""
        super().clean_up()
        self._shown = {}

    def _write(self) -> None:
        from drytrack.trackers import _plotly_panels

        figures = [*self._figures.values(), *self.plot_media()]
        if figures:
            page = _plotly_panels.make_page(figures, self._title, self._look)
            replace_file(self.run_dir / "plots.html", page.encode())

    def _show(
        self, key: tuple[str, object], figure: Any, *, as_widget: bool = True
    ) -> None:
        if not (self._in_notebook and is_notebook()):
            return
        display: Any = importlib.import_module("IPython.display")

        from drytrack.trackers import _plotly_panels

        shown = self._shown.get(key)
        if shown is None:
            widget = _make_widget(figure) if as_widget else None
            if widget is not None:
                display.display(widget)
                self._shown[key] = widget
            else:
                self._shown[key] = display.display(figure, display_id=True)
        elif hasattr(shown, "batch_update"):
            _plotly_panels.sync(shown, figure)
        else:
            shown.update(figure)


def _make_widget(figure: Any) -> Any:
    """Return a figure that can be changed where it is shown; None without anywidget."""
    import plotly.graph_objects as go

    try:
        return go.FigureWidget(figure)
    except ImportError:
        return None
