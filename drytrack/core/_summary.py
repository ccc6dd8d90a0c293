"""The summary of a run, which tells its trackers of every change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from drytrack.core._names import shorten
from drytrack.core.exceptions import EventValueError
from drytrack.core.log_events import SummaryEvent

if TYPE_CHECKING:
    from drytrack.core._run_logging import RunLogging

__all__ = ["Summary"]


class Summary(Mapping[str, Any]):
    """Name → value; setting one publishes it, and it is in the stop event.

    Args:
        run: The run.
    """

    def __init__(self, run: RunLogging) -> None:
        self._run = run

    def __getitem__(self, name: str) -> Any:
        """Return a value as plain data."""
        return self._run._summary[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._run._summary)

    def __len__(self) -> int:
        """Return how many values there are."""
        return len(self._run._summary)

    def __repr__(self) -> str:
        """Show the values."""
        return f"{type(self).__name__}({self._run._summary!r})"

    def __setitem__(self, name: str, value: object) -> None:
        """Set a value.

        Raises:
            RunStateError: If the run has not started, or has ended.
        """
        self.update({name: value})

    def update(self, values: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Set several values at once.

        Args:
            values: Name → value.
            **more: The same as keywords.

        Raises:
            RunStateError: If the run has not started, or has ended.
            EventValueError: If it is no mapping.
        """
        self._run._require_running("take a summary")
        if values is not None and not isinstance(values, Mapping):
            msg = (
                f"a summary must map names to values, got {type(values).__name__} "
                f"{shorten(values)}. Pass a dictionary such as {{'best': 0.9}}."
            )
            raise EventValueError(msg)
        event = SummaryEvent.unpublished({**(values or {}), **more})
        self._run._publish(event)
