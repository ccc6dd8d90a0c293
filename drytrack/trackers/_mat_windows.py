"""Windows of matplotlib figures, without pyplot's list of figures."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import matplotlib as mpl

from drytrack.core.exceptions import ConfigurationError


def find_figure(title: str, windows: dict[str, Any]) -> Any:
    """Return the figure in the window of a title; None where it is not open."""
    manager = windows.get(title)
    if manager is None or not _is_open(manager):
        windows.pop(title, None)
        return None
    return manager.canvas.figure


def show(figure: Any, title: str, windows: dict[str, Any]) -> None:
    """Show a figure, new or changed, in the window of its title."""
    manager = windows.get(title)
    if manager is None:
        manager = windows[title] = _open(figure, len(windows) + 1)
        manager.set_window_title(title)
        manager.show()
    manager.canvas.draw()
    manager.canvas.flush_events()


def _open(figure: Any, number: int) -> Any:
    try:
        return _find_canvas().new_manager(figure, number)
    except ConfigurationError:
        raise
    except Exception as err:  # each toolkit has its own, where there is no display
        msg = f"A window cannot be opened: {err}. Look at the files that are saved."
        raise ConfigurationError(msg) from err


def wait(windows: dict[str, Any]) -> None:
    """Wait until the windows are closed."""
    for manager in list(windows.values()):
        if _is_open(manager):
            type(manager).start_main_loop()


def close(windows: dict[str, Any]) -> None:
    """Close the windows."""
    while windows:
        _, manager = windows.popitem()
        if _is_open(manager):
            manager.destroy()


def _is_open(manager: Any) -> bool:
    """Return whether the user has not closed a window."""
    window: Any = getattr(manager, "window", None)
    try:
        if hasattr(window, "isVisible"):  # Qt
            return bool(window.isVisible())
        if hasattr(window, "winfo_exists"):  # Tk
            return bool(window.winfo_exists())
    except Exception:  # noqa: BLE001  # what each toolkit says of a dead window
        return False
    return window is not None


def _find_canvas() -> Any:
    """Return the canvas class of a backend with windows.

    That is the one that the user has chosen, or one whose toolkit can be had.
    """
    chosen = os.environ.get("MPLBACKEND") or _chosen_backend()
    names = [chosen] if chosen else ["macosx", "qtagg", "gtk4agg", "gtk3agg", "tkagg"]
    if not chosen and sys.platform != "darwin":
        names.remove("macosx")
    for name in names:
        module = name.removeprefix("module://")
        if module == name:
            module = f"matplotlib.backends.backend_{name.lower()}"
        try:
            canvas = importlib.import_module(module).FigureCanvas
        except ImportError:
            continue
        if canvas.required_interactive_framework:
            return canvas
    msg = (
        f"Matplotlib has no backend that opens windows (it was asked for "
        f"{', '.join(names)}). Install PySide6, or look at the files that it saves."
    )
    raise ConfigurationError(msg)


def _chosen_backend() -> str | None:
    # Reading the setting itself would make pyplot choose one.
    chosen = dict.__getitem__(mpl.rcParams, "backend")
    return chosen if isinstance(chosen, str) else None
