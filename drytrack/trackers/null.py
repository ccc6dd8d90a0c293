"""Tracker that does nothing: a stand-in, and the least that a tracker can be."""

from __future__ import annotations

from drytrack.core.track import Tracker

__all__ = ["NullTracker"]


class NullTracker(Tracker):
    """Watches a run and keeps nothing of it.

    It takes a place where a tracker is expected and none is wanted; no event
    costs anything for its sake.
    """

    name = "null"
