"""What trackers and the journal cost the training thread."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from drytrack.core._bus import Bus

WORTH_SAYING = 0.01
"""The share of a run's time above which its stop says what trackers cost."""

WORTH_SAYING_S = 0.05
"""Seconds below which it says nothing: of a run of a moment all is start and end."""

_logger = logging.getLogger("drytrack")


class Cost(NamedTuple):
    """What one tracker, or the journal, has cost.

    Attributes:
        name: The tracker's name, or ``journal``.
        calls: Events that it was called for.
        training_s: Seconds of the publishing threads.
        share: The same as a part of the run's duration, from 0.
        worker_s: Seconds of its own thread.
    """

    name: str
    calls: int
    training_s: float
    share: float
    worker_s: float


def list_costs(bus: Bus, began: float) -> list[Cost]:
    """Return what the journal and each tracker of a run have cost.

    Args:
        bus: The run's bus.
        began: When the run began, in seconds since the epoch.
    """
    bus.fold()
    elapsed = max(time.time() - began, 1e-9)
    rows = []
    if bus.journal is not None:
        seconds = bus.record_ns / 1e9
        rows.append(Cost("journal", bus.recorded, seconds, seconds / elapsed, 0.0))
    for guest in bus.guests.values():
        seconds = guest.inline_ns / 1e9
        worker_s = guest.worker_ns / 1e9
        share = seconds / elapsed
        rows.append(Cost(guest.name, guest.calls, seconds, share, worker_s))
    return rows


def say_costs(costs: list[Cost]) -> None:
    """Log what is worth saying of the costs of a run."""
    share = sum(cost.share for cost in costs)
    seconds = sum(cost.training_s for cost in costs)
    if share > WORTH_SAYING and seconds > WORTH_SAYING_S:
        parts = sorted(costs, key=lambda cost: -cost.share)[:5]
        listed = ", ".join(f"{c.name} {c.share:.1%}" for c in parts if c.share)
        _logger.info("drytrack took %.1f %% of the run: %s", 100 * share, listed)
