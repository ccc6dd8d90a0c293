"""The ``drytrack`` logger: its levels, its one handler, and what was chosen for it.

What differs from how we left the logger was set by the user, and is kept.
"""

from __future__ import annotations

import enum
import logging
import sys
from typing import Final, Literal, TextIO

from typing_extensions import override

from drytrack.trackers import _screen

StreamName = Literal["stderr", "stdout"]

logger: Final = logging.getLogger("drytrack")


class Level(enum.IntEnum):
    """The levels of drytrack's own, from the least important up.

    Verbosity is an ordering: a level shows itself and all that follow it.
    ``logging.INFO``, which the modes but ``minimal`` start with, stands between
    `EPOCH` and `MODEL_STATE`; warnings stand above all of them.
    """

    INTERNAL = 12
    EPOCH = 16
    MODEL_STATE = 21
    EXPERIMENT = 22
    TRAINING = 23
    TEST = 24
    METRICS = 26

    @property
    def label(self) -> str:
        """What the level is called in a log."""
        return self.name.replace("_", " ")


class _Formatter(logging.Formatter):
    """Time and sentence; what is worse than information says so."""

    def __init__(self) -> None:
        super().__init__("[%(asctime)s] %(message)s", "%H:%M:%S")
        text = "[%(asctime)s] %(levelname)s: %(message)s"
        self._loud = logging.Formatter(text, "%H:%M:%S")

    @override
    def format(self, record: logging.LogRecord) -> str:
        if record.levelno >= logging.WARNING:
            return self._loud.format(record)
        return super().format(record)


class _ConsoleHandler(logging.Handler):
    """Writes above the bars, to a stream that is looked up for each line."""

    def __init__(self) -> None:
        super().__init__()
        self.stream_name: StreamName = "stderr"
        self.stream: TextIO | None = None
        self.setFormatter(_Formatter())

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            if _is_shown_above(record):
                _screen.clear_bars()
                return
            stream = self.stream or getattr(sys, self.stream_name)
            if stream is not None:  # as it is under pythonw
                _screen.write_line(self.format(record), stream)
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001  # logging's own way with them
            self.handleError(record)


def _is_shown_above(record: logging.LogRecord) -> bool:
    """Return whether a handler further up will show the record."""
    above: logging.Logger | None = logger
    while above is not None and above.propagate:
        above = above.parent
        for handler in above.handlers if above is not None else ():
            silent = isinstance(handler, (logging.FileHandler, logging.NullHandler))
            if not silent and record.levelno >= handler.level:
                return True
    return False


class _Setup:
    """How the logger was left by us; whatever differs was set by the user."""

    def __init__(self) -> None:
        self.handler = _ConsoleHandler()
        self.attach: bool | None = None  # None: where the user has no handler
        self.level: int | None = logging.NOTSET  # None: the user's
        self.propagate: bool | None = True  # None: the user's

    def prepare(self, level: int, stream: StreamName, *, propagate: bool) -> None:
        """Set the logger up for a run, as far as the user has not."""
        name_levels()
        if logger.level == self.level:
            logger.setLevel(level)
            self.level = level
        others = [
            handler
            for handler in logger.handlers
            if handler is not self.handler
            and not isinstance(handler, logging.NullHandler)
        ]
        if self.attach is None and others:
            logger.removeHandler(self.handler)
            return
        self.handler.stream_name = stream
        if self.attach is not False:
            logger.addHandler(self.handler)
        if logger.propagate is self.propagate:
            logger.propagate = self.propagate = propagate


_setup = _Setup()


def prepare(level: int, stream: StreamName, *, propagate: bool) -> None:
    """Set the logger up for a run, as far as the user has not.

    Args:
        level: The lowest level to show.
        stream: The standard stream to write to.
        propagate: Whether the root logger's handlers get the lines too.
    """
    _setup.prepare(level, stream, propagate=propagate)


def name_levels() -> None:
    """Make our levels known to `logging`, under names that are free."""
    for level in Level:
        if logging.getLevelName(int(level)) == f"Level {int(level)}":
            logging.addLevelName(int(level), level.label)


def set_verbosity(level: int | str) -> None:
    """Choose the lowest level to show; modes change it no more.

    Args:
        level: A `Level`, its name (``"training"``, ``"model state"``), or any
            level of `logging`.

    Raises:
        ValueError: If there is no such level.
    """
    found = find_level(level)
    name_levels()
    logger.setLevel(found)
    _setup.level = None


def get_verbosity() -> int:
    """Return the lowest level that is shown."""
    return logger.getEffectiveLevel()


def set_formatter(style: str | logging.Formatter = "drytrack") -> None:
    """Choose what the lines of our handler look like.

    Args:
        style: ``"drytrack"``: time and sentence. ``"standard"``: date, level and
            logger too. Or a formatter, or a format in the %-style of `logging`.

    Raises:
        ValueError: If a string is none of these.
    """
    formatter: logging.Formatter
    if isinstance(style, logging.Formatter):
        formatter = style
    elif style == "drytrack":
        formatter = _Formatter()
    elif style == "standard":
        text = "%(asctime)s %(levelname)s %(name)s: %(message)s"
        formatter = logging.Formatter(text)
    elif "%(" in style:
        formatter = logging.Formatter(style)
    else:
        msg = (
            f"There is no format {style!r}. Pass 'drytrack', 'standard', a "
            f"logging.Formatter, or a text such as '%(levelname)s %(message)s'."
        )
        raise ValueError(msg)
    _setup.handler.setFormatter(formatter)


def enable_default_handler(stream: TextIO | None = None) -> None:
    """Write to the console, also where the logger has other handlers.

    Args:
        stream: By default the standard stream that the mode names.
    """
    name_levels()
    _setup.attach = True
    _setup.handler.stream = stream
    logger.addHandler(_setup.handler)


def disable_default_handler() -> None:
    """Let our handler write nothing; other handlers are left alone."""
    _setup.attach = False
    logger.removeHandler(_setup.handler)


def enable_propagation() -> None:
    """Let the root logger's handlers have the lines.

    Where one of them shows them, our own handler stays silent.
    """
    _setup.propagate = None
    logger.propagate = True


def disable_propagation() -> None:
    """Keep the lines from the root logger's handlers."""
    _setup.propagate = None
    logger.propagate = False


def reset_logging() -> None:
    """Forget all that was chosen; the next run sets the logger up by its mode."""
    global _setup  # one logger, one state
    logger.removeHandler(_setup.handler)
    logger.setLevel(logging.NOTSET)
    logger.propagate = True
    _setup = _Setup()


def find_level(level: int | str) -> int:
    """Return the number of a level.

    Args:
        level: The number, or a name of ours or of `logging`.

    Raises:
        ValueError: If there is no such level.
    """
    if isinstance(level, int):
        return int(level)
    name = level.strip().upper().replace(" ", "_")
    if name in Level.__members__:
        return int(Level[name])
    standard = logging.getLevelNamesMapping()
    if name in standard:
        return standard[name]
    known = ", ".join(repr(one.label.lower()) for one in Level)
    msg = f"There is no level {level!r}. Pass one of {known}, or one of logging's."
    raise ValueError(msg)
