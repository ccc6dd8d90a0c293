"""SIGTERM during a run: leave by an exception, so that everything is closed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

EXIT_CODE = 128 + 15
"""What a shell reports for a process that SIGTERM ended."""


class TermHandler:
    """Turns SIGTERM into ``SystemExit(143)`` while a run is active.

    A handler of the user's is called first, and then decides alone whether
    the process ends. Nothing is installed outside of the main thread, or
    where the signal is ignored.
    """

    def __init__(self, on_term: Callable[[], bool]) -> None:
        """Install nothing yet.

        Args:
            on_term: Called with the signal; returns whether to leave at once.
        """
        self._on_term = on_term
        self._pid = 0
        self._before: Any = None

    def install(self) -> None:
        """Take over the signal, if nobody ignores it."""
        if threading.current_thread() is not threading.main_thread():
            return
        before = _skip_ended(signal.getsignal(signal.SIGTERM))
        # None: installed by C code, which could not be restored.
        if before in (signal.SIG_IGN, None):
            return
        self._before = before
        self._pid = os.getpid()
        signal.signal(signal.SIGTERM, self._handle)

    def restore(self) -> None:
        """Give the signal back, if it is still ours to give."""
        if self._pid != os.getpid():
            return
        self._pid = 0
        if threading.current_thread() is not threading.main_thread():
            return  # only there can it be changed; the handler passes it on
        if signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, _skip_ended(self._before))

    def _handle(self, number: int, frame: FrameType | None) -> None:
        before = _skip_ended(self._before)
        if self._pid == os.getpid():
            leave = self._on_term()
            if before is signal.SIG_DFL:
                if leave:
                    raise SystemExit(EXIT_CODE)
                return
        if callable(before):
            before(number, frame)
        elif before is signal.SIG_DFL:  # a forked child, or a run that is over
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _skip_ended(handler: Any) -> Any:
    """Return what stands behind the handlers of runs that are over.

    Runs may end in another order than that in which they began.
    """
    while isinstance(owner := getattr(handler, "__self__", None), TermHandler):
        if owner._pid == os.getpid():
            break
        handler = owner._before
    return handler
