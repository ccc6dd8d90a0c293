"""Tracker that shows learning curves on a Visdom server."""

from __future__ import annotations

import contextlib
import logging
import urllib.parse
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal, Unpack

from drytrack.core import log_events
from drytrack.core.exceptions import BackendError, ConfigurationError
from drytrack.trackers._plot_style import find_look
from drytrack.trackers._plotter import BasePlotter

if TYPE_CHECKING:
    import pathlib

    from plotly.graph_objects import Figure

    from drytrack.trackers._plot_data import Panel
    from drytrack.trackers._plot_media import Medium
    from drytrack.trackers._plot_view import PlotOptions
    from drytrack.trackers.base import MetricLoader

__all__ = ["VisdomPlotter"]

_logger = logging.getLogger("drytrack")


class VisdomPlotter(BasePlotter["dict[str, Figure]"]):
    """Shows one window for each metric, and for each histogram, image and table.

    The windows of a run are an environment of their own, which is saved by the
    server when the run ends. An update replaces them as a whole, so a server
    that was gone for a while is told all that it has missed.

    A server that the tracker starts is for this machine alone and ends with the
    run; what it saves is in ``<par_dir>/visdom``, for ``visdom -env_path``. The
    first one of an installation fetches the scripts of its page from the
    network; without them it takes windows and shows an empty page.
    """

    name = "visdom"
    packages = ("visdom", "plotly", "numpy", "tsdownsample")
    extra = "visdom"
    notify = BasePlotter.notify.extend()

    def __init__(
        self,
        url: str | None = None,
        *,
        start_server: bool = False,
        port: int = 8097,
        env: str | None = None,
        username: str | None = None,
        password: str | None = None,
        theme: Literal["light", "dark"] = "light",
        models: str | Collection[str] = (),
        metric_loader: MetricLoader | None = None,
        every_s: float = 2.0,
        **options: Unpack[PlotOptions],
    ) -> None:
        """Choose a server, and what it shows.

        Args:
            url: Where a server is; by default ``http://127.0.0.1:8097``.
            start_server: Whether to start one on 127.0.0.1 for each run.
            port: Where it is started; the next free one where it is in use.
            env: The environment, by default ``<experiment>_<run_id>``.
            username: For a server that asks for a login.
            password: For a server that asks for a login.
            theme: ``"light"`` or ``"dark"``.
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
        if url is not None and start_server:
            msg = "A server is given and another to be started. Pass one of the two."
            raise ConfigurationError(msg)
        if url is not None and not urllib.parse.urlsplit(url).hostname:
            msg = f"url is {url!r}. Pass one such as 'http://127.0.0.1:8097'."
            raise ConfigurationError(msg)
        if (username is None) != (password is None):
            msg = "A login needs a username and a password. Pass both, or none."
            raise ConfigurationError(msg)
        self._given_url = url
        self._start_server = start_server
        self._port = port
        self._given_env = env
        self._login = username, password
        self._look = find_look(theme)
        self._client: Any = None
        self._url: str | None = None
        self._env = ""

    @property
    def url(self) -> str | None:
        """Where the windows of the run are shown; None before the first update."""
        if self._url is None:
            return None
        return f"{self._url.rstrip('/')}/env/{urllib.parse.quote(self._env, safe='')}"

    @property
    def native(self) -> Any:
        """A ``visdom.Visdom`` for the run's server; None before the first update."""
        return self._client

    def plot_metric(
        self, panel: Panel, figure: dict[str, Figure] | None
    ) -> dict[str, Figure]:
        """Add the figure of a metric; see `BasePlotter.plot_metric`."""
        from drytrack.trackers import _visdom_windows

        drawn = _visdom_windows.draw_panel(panel, self._look)
        return {**(figure or {}), panel.metric: drawn}

    def plot_media(self) -> list[dict[str, Figure]]:
        """Return what was published beside metrics, each by its title."""
        return [{medium.title: self._draw_medium(medium)} for medium in self._media()]

    # -- live --------------------------------------------------------------------

    def _begin_output(self, event: log_events.StartExperimentEvent) -> None:
        self._env = self._given_env or f"{event.exp_name}_{event.run_id}"
        self._folder: pathlib.Path = event.par_dir / "visdom"
        self._client = self._url = None
        self._behind = False
        # A server may end before the run does, and be started anew.
        self._server = self.enter_context(contextlib.ExitStack())
        if self._start_server:
            self._connect()

    def update_model(self, model: str, figure: dict[str, Figure]) -> None:
        """Show the metrics of a model."""
        for metric, drawn in figure.items():
            title = f"{metric} · {model}" if model else metric
            self._put(("metrics", model, metric), drawn, title)

    def update_media(self) -> None:
        """Show histograms, images, tables and figures."""
        for medium in self._media():
            place = medium.kind, medium.source, medium.name
            self._put(place, self._draw_medium(medium), medium.title)

    def end_update(self) -> None:
        """Show everything where a server may have forgotten it."""
        if self._behind:
            self._put_all()
            self._behind = False

    def end_plots(self) -> None:
        """Show everything, and have it saved."""
        self._put_all()
        self._ask("save", [self._env])

    def clean_up(self) -> None:
        """Let go of the server."""
        super().clean_up()
        self._client = None

    def _draw_medium(self, medium: Medium) -> Figure:
        from drytrack.trackers import _visdom_windows

        return _visdom_windows.draw_medium(medium, self._look)

    def _put_all(self) -> None:
        for model, figure in self._figures.items():
            self.update_model(model, figure)
        self.update_media()

    def _put(self, place: tuple[str, ...], figure: Figure, title: str) -> None:
        from drytrack.trackers import _visdom_windows

        message = _visdom_windows.make_message(figure, title)
        message.update(win=_visdom_windows.window_of(*place), eid=self._env)
        # What Visdom's own calls end in; they draw figures of their own.
        self._ask("_send", message)

    def _ask(self, method: str, content: Any) -> None:
        self._connect()
        try:
            getattr(self._client, method)(content)
        except (OSError, RuntimeError) as err:  # no answer, or no login
            self._client = None
            self._behind = True
            msg = (
                f"The Visdom server at {self._url} does not answer: "
                f"{err.__context__ or err}. Start it; it will be told what it missed."
            )
            raise BackendError(msg) from err

    def _connect(self) -> None:
        if self._client is not None:
            return
        from drytrack.trackers import _visdom_windows

        if self._start_server:
            self._url = self._serve()
        else:
            default = f"http://127.0.0.1:{_visdom_windows.DEFAULT_PORT}"
            self._url = self._given_url or default
        self._client = _visdom_windows.connect(self._url, *self._login)

    def _serve(self) -> str:
        """Start a server, after the end of the one before, if there was one."""
        from drytrack.trackers import _visdom_server
        from drytrack.trackers._local_server import show

        self._server.close()
        url = self._server.enter_context(
            _visdom_server.serve_visdom(self._folder, self._port)
        )
        if not _visdom_server.has_scripts():
            _logger.warning(
                "The page of Visdom stays empty: its scripts could not be fetched. "
                "Start a run, or the command visdom, once where there is a network."
            )
        show(url, "Visdom")
        return url
