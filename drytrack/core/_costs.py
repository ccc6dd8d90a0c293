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
    # One delivery that is timed stands for many. Where the machine stood still in it,
    # all together would exceed the run that they are a part of.
    guests = list(bus.guests.values())
    total = (bus.record_ns + sum(guest.inline_ns for guest in guests)) / 1e9
    scale = min(1.0, elapsed / total) / 1e9 if total else 1e-9

    def cost(name: str, calls: int, training_ns: int, worker_ns: int) -> Cost:
        seconds = training_ns * scale
        return Cost(name, calls, seconds, seconds / elapsed, worker_ns / 1e9)

    rows = [cost(g.name, g.calls, g.inline_ns, g.worker_ns) for g in guests]
    if bus.journal is not None:
        rows.insert(0, cost("journal", bus.recorded, bus.record_ns, 0))
    return rows


def say_costs(costs: list[Cost]) -> None:
    """Log what is worth saying of the costs of a run."""
    share = sum(cost.share for cost in costs)
    seconds = sum(cost.training_s for cost in costs)
    if share > WORTH_SAYING and seconds > WORTH_SAYING_S:
        parts = sorted(costs, key=lambda cost: -cost.share)[:5]
        listed = ", ".join(f"{c.name} {c.share:.1%}" for c in parts if c.share)
        _logger.info("drytrack took %.1f %% of the run: %s", 100 * share, listed)
