"""What one thread waits for and others ring, safe from signals."""

from __future__ import annotations

import threading


class Bell:
    """Ends the wait of one thread, from any other; it rings until it is heard.

    Not a `threading.Event`: an exception that a signal's handler raises amid its
    `set` or `wait`, such as KeyboardInterrupt, may leave its inner lock held for
    ever, and with it whoever rings next. Here each step is one call of a lock.
    """

    __slots__ = ("_silence",)

    def __init__(self) -> None:
        """Start silent."""
        self._silence = threading.Lock()
        self._silence.acquire()

    def ring(self) -> None:
        """End the wait of whoever waits, or else of who does so next."""
        try:
            self._silence.release()
        except RuntimeError:  # it rings already
            return

    def wait(self, timeout_s: float) -> bool:
        """Wait for it to ring, and silence it.

        Args:
            timeout_s: Seconds to wait at the most; at least 0.

        Returns:
            Whether it has rung.
        """
        return self._silence.acquire(timeout=timeout_s)
