from __future__ import annotations

import drytrack
from drytrack.core import log_events
from drytrack.core.track import Tracker
from drytrack.testing import TrackerContract
from drytrack.trackers.null import NullTracker


class TestNullTracker(TrackerContract):
    def make_tracker(self, tmp_path):
        return NullTracker()


def test_it_handles_no_event():
    tracker = NullTracker()

    handlers = [
        tracker._find_handler(event_type)
        for event_type in vars(log_events).values()
        if isinstance(event_type, type) and issubclass(event_type, log_events.Event)
    ]

    assert len(handlers) > 20
    assert set(handlers) == {None}


def test_it_stands_in_for_a_tracker(tmp_path):
    experiment = drytrack.Experiment(name="Null", par_dir=tmp_path)
    experiment.trackers.remove_all()
    experiment.trackers.subscribe(NullTracker())

    with experiment.create_run(record=False):
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5})
        found = NullTracker.get_current()

    assert isinstance(found, Tracker)
    assert experiment.trackers.named_trackers["null"] is found
    assert list(tmp_path.iterdir()) == []
