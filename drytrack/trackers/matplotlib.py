"""Tracker that draws learning curves with matplotlib."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal, Unpack

from drytrack.core import log_events
from drytrack.core._atomic import replace_file
from drytrack.core.exceptions import ConfigurationError
from drytrack.trackers._notebook import is_notebook
from drytrack.trackers._plot_files import FileNames
from drytrack.trackers._plot_style import find_look
from drytrack.trackers._plotter import BasePlotter
from drytrack.trackers.base import Dumper, MetricLoader

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure

    from drytrack.trackers._mat_panels import PanelFigure
    from drytrack.trackers._plot_data import Panel
    from drytrack.trackers._plot_view import PlotOptions

__all__ = ["MatPlotter"]

FORMATS = ("pdf", "png", "svg")


class MatPlotter(BasePlotter["Figure"], Dumper):
    """Draws one figure for each model, with one panel for each metric.

    Files in the run's folder, replaced as a whole::

        models/<model>.png      curves of a model
        run.png                 curves of metrics without a model
        media.png, media_2.png  histograms, images, tables and figures

    In a notebook the figures appear below the cell, and change there. Nothing
    needs a display, and nothing touches pyplot. A window is opened by `show`
    alone, since only the main thread may have one.
    """

    name = "matplotlib"
    folder_name = "matplotlib"
    in_place = True
    packages = ("matplotlib", "numpy", "tsdownsample")
    notify = BasePlotter.notify.extend(Dumper.notify)

    def __init__(
        self,
        par_dir: str | os.PathLike[str] | None = None,
        *,
        formats: str | Collection[str] = ("png",),
        save: Literal["update", "end"] = "update",
        theme: Literal["light", "dark"] = "light",
        size: tuple[float, float] | None = None,
        in_notebook: bool = True,
        models: str | Collection[str] = (),
        metric_loader: MetricLoader | None = None,
        every_s: float = 2.0,
        **options: Unpack[PlotOptions],
    ) -> None:
        """Choose where and how to draw.

        Args:
            par_dir: Where files are written, by default the experiment's.
            formats: Files to write: ``"png"``, ``"svg"``, ``"pdf"``; empty for
                none.
            save: Whether files are written at each update or at the end alone.
            theme: ``"light"`` or ``"dark"``.
            size: Width and height of a figure in inches; by default as its
                panels need.
            in_notebook: Whether figures are shown where there is a notebook.
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
        self._formats = (formats,) if isinstance(formats, str) else tuple(formats)
        for unknown in set(self._formats) - set(FORMATS):
            msg = f"There is no format {unknown!r} here. Pass some of {FORMATS}."
            raise ConfigurationError(msg)
        find_look(theme)
        self._save = save
        self._theme = theme
        self._size = size
        self._in_notebook = in_notebook
        self._windows: dict[str, Any] = {}

    def plot_metric(self, panel: Panel, figure: Figure | None) -> Figure:
        """Draw one panel of a model's figure; see `BasePlotter.plot_metric`."""
        from drytrack.trackers import _mat_panels

        if not isinstance(figure, _mat_panels.PanelFigure):
            figure = _mat_panels.PanelFigure(self._theme, self._size)
        with _mat_panels.drawing:
            _mat_panels.draw_panel(panel, figure)
        return figure

    def plot_media(self) -> list[Figure]:
        """Return figures with what was published beside metrics, 25 on each."""
        from drytrack.trackers import _mat_media, _mat_panels

        with _mat_panels.drawing:
            return [*_mat_media.draw_sheets(self._media(), self._theme, self._size)]

    def show(self, model: str | None = None, *, block: bool = False) -> None:
        """Show a model's curves in a window, opened once and then updated.

        Call it on the main thread, once in an epoch for example: between two
        calls the window stands still, since the training has the thread.

        Args:
            model: As for `plot`.
            block: Whether to wait until all windows are closed.

        Raises:
            ConfigurationError: If it is not the main thread, or matplotlib has
                no backend that opens windows.
            LookupError: As for `plot`.
        """
        if threading.current_thread() is not threading.main_thread():
            msg = "Windows belong to the main thread. Call show() there."
            raise ConfigurationError(msg)
        from drytrack.trackers import _mat_windows

        panels = self._find_panels(model, None, {})
        name = panels[0].model or "run"
        former = _mat_windows.find_figure(name, self._windows)
        figure = self._draw(panels, former)
        _mat_windows.show(figure, name, self._windows)
        if block:
            _mat_windows.wait(self._windows)

    def close(self) -> None:
        """Close the windows that `show` has opened."""
        if self._windows:
            from drytrack.trackers import _mat_windows

            _mat_windows.close(self._windows)

    # -- live --------------------------------------------------------------------

    def _begin_output(self, event: log_events.StartExperimentEvent) -> None:
        self._files = FileNames()
        self._displays: dict[str, Any] = {}

    def update_model(self, model: str, figure: Figure) -> None:
        """Show and save a figure that has been drawn anew."""
        place = self._files.of_model(model)
        self._put(place, figure, write=self._save == "update")

    def update_media(self) -> None:
        """Show and save histograms, images, tables and figures."""
        self._put_media(write=self._save == "update")

    def end_plots(self) -> None:
        """Save what was not saved yet, and let go of the figures."""
        if self._save == "end":
            for model, figure in self._figures.items():
                self._put(self._files.of_model(model), figure, write=True)
            self._put_media(write=True)

    def clean_up(self) -> None:
        """Let go of figures and displays; windows stay until they are closed."""
        super().clean_up()
        self._displays = {}

    def _put_media(self, *, write: bool) -> None:
        if not (write and self._formats) and not self._is_shown():
            return  # sheets are drawn to be seen, curves to go on with
        for number, sheet in enumerate(self.plot_media(), start=1):
            place = "media" if number == 1 else f"media_{number}"
            self._put(place, sheet, write=write)

    def _put(self, place: str, figure: Any, *, write: bool) -> None:
        from drytrack.trackers import _mat_panels

        if write:
            for suffix in self._formats:
                path = self.run_dir / f"{place}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, _mat_panels.render(figure, suffix))
        if self._is_shown():
            self._display(place, figure)

    def _is_shown(self) -> bool:
        return self._in_notebook and is_notebook()

    def _display(self, place: str, figure: PanelFigure) -> None:
        display: Any = importlib.import_module("IPython.display")

        from drytrack.trackers import _mat_panels

        dpi = _mat_panels.NOTEBOOK_DPI
        data = _mat_panels.render(figure, "png", dpi=dpi)
        width, height = _mat_panels.figure_pixels(figure, _mat_panels.DPI)
        picture = display.Image(data=data, format="png", width=width, height=height)
        handle = self._displays.get(place)
        if handle is None:
            self._displays[place] = display.display(picture, display_id=True)
        else:
            handle.update(picture)
