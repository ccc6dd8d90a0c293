from __future__ import annotations

import dataclasses
import functools
import pprint
from typing import Any
from unittest import mock

import pytest
from typing_extensions import override

from drytrack.core import log_events
from drytrack.core._notify import Notify
from drytrack.core.exceptions import AccessOutsideScopeError, HandlerError
from drytrack.core.log_events import Event, MetricEvent, StepMetricEvent, TextEvent
from drytrack.core.track import Tracker

METRIC = MetricEvent.unpublished("m", "s", 1, {"loss": 1.0})
STEP = StepMetricEvent.unpublished("s", 1, {"loss": 1.0})
TEXT = TextEvent.unpublished("s", "n", 1, "t")
START = log_events.StartExperimentEvent.unpublished({}, "e", None, "r")
STOP = log_events.StopExperimentEvent.unpublished("e", "r")


class Base(Tracker):
    """Notes which handler was called; the handlers of the tests derive from it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []


class Short(Base):
    notify = Base.notify.extend()

    @notify.register
    def _on_metric(self, event: MetricEvent) -> None:
        self.calls.append("short metric")

    @notify.register
    def _on_text(self, event: TextEvent) -> None:
        self.calls.append("short text")


class Classic(Base):
    @functools.singledispatchmethod
    @override
    def notify(self, event: log_events.Event) -> None:
        self.calls.append("classic default")
        return super().notify(event)

    @notify.register
    def _(self, event: MetricEvent) -> None:
        self.calls.append("classic metric")
        return super().notify(event)


def calls_for(tracker: Base, *events: Event) -> list[str]:
    tracker.calls.clear()
    for event in events:
        tracker.notify(event)
        called = tracker.calls.copy()
        # What the bus calls without going through notify does the same.
        tracker.calls.clear()
        handler = tracker._find_handler(type(event))
        if handler is not None:
            handler(event)
        assert tracker.calls == called
    return tracker.calls


# -- the short form --------------------------------------------------------------


def test_a_handler_is_called_for_its_event_and_no_other():
    assert calls_for(Short(), METRIC) == ["short metric"]
    assert calls_for(Short(), STEP) == []
    assert Short()._find_handler(StepMetricEvent) is None


def test_a_handler_serves_the_classes_derived_from_its_event():
    @dataclasses.dataclass(frozen=True)
    class Validation(MetricEvent):
        fold: int = 0

    assert calls_for(Short(), Validation.unpublished("m", "s", 1, {})) == [
        "short metric"
    ]


def test_a_handler_of_event_itself_catches_all_that_has_no_other():
    class CatchAll(Short):
        notify = Short.notify.extend()

        @notify.register
        def _on_any(self, event: Event) -> None:
            self.calls.append("any")

    tracker = CatchAll()
    assert calls_for(tracker, STEP) == ["any"]
    assert calls_for(tracker, METRIC) == ["short metric"]
    assert calls_for(tracker, START) == ["any"]


def test_extend_leaves_the_parent_alone():
    class Child(Short):
        notify = Short.notify.extend()

        @notify.register
        def _on_metric_too(self, event: MetricEvent) -> None:
            self.calls.append("child metric")

        @notify.register
        def _on_step(self, event: StepMetricEvent) -> None:
            self.calls.append("child step")

    assert calls_for(Child(), METRIC) == ["child metric"]
    assert calls_for(Child(), STEP) == ["child step"]
    assert calls_for(Child(), TEXT) == ["short text"]
    assert calls_for(Short(), METRIC) == ["short metric"]
    assert calls_for(Short(), STEP) == []


def test_several_parents_are_extended_and_the_first_one_wins():
    class Other(Base):
        notify = Base.notify.extend()

        @notify.register
        def _other_metric(self, event: MetricEvent) -> None:
            self.calls.append("other metric")

        @notify.register
        def _other_step(self, event: StepMetricEvent) -> None:
            self.calls.append("other step")

    class Both(Short, Other):
        notify = Short.notify.extend(Other.notify)

    assert calls_for(Both(), METRIC) == ["short metric"]
    assert calls_for(Both(), STEP) == ["other step"]
    assert calls_for(Both(), TEXT) == ["short text"]


def test_a_method_that_overrides_a_handler_by_name_wins():
    class Child(Short):
        def _on_metric(self, event: MetricEvent) -> None:
            self.calls.append("overridden")
            super()._on_metric(event)

    class Grandchild(Child):
        notify = Child.notify.extend()

        @notify.register
        def _on_step(self, event: StepMetricEvent) -> None:
            self.calls.append("step")

    assert calls_for(Child(), METRIC) == ["overridden", "short metric"]
    assert calls_for(Grandchild(), METRIC) == ["overridden", "short metric"]
    assert calls_for(Grandchild(), STEP) == ["step"]
    assert calls_for(Short(), METRIC) == ["short metric"]


def test_a_handler_may_be_registered_for_several_events():
    class Many(Base):
        notify = Base.notify.extend()

        @notify.register
        def _on_metrics(self, event: MetricEvent | StepMetricEvent) -> None:
            self.calls.append("one of two")

        @notify.register(TextEvent)
        def _on_text(self, event: Any) -> None:
            self.calls.append("by class")

    assert calls_for(Many(), METRIC) == ["one of two"]
    assert calls_for(Many(), STEP) == ["one of two"]
    assert calls_for(Many(), TEXT) == ["by class"]


def test_a_handler_is_still_a_method():
    tracker = Short()
    tracker._on_text(TEXT)

    assert tracker.calls == ["short text"]


# -- refused when the class is defined ---------------------------------------------


@pytest.mark.parametrize(
    "annotation", [int, str, object, Tracker, "int | MetricEvent", list[int]]
)
def test_a_handler_for_what_is_no_event_is_refused(annotation):
    def handler(self, event) -> None: ...

    handler.__annotations__["event"] = annotation

    with pytest.raises(
        HandlerError, match=r"handler is registered for .*no event class"
    ):
        Notify().register(handler)


def test_a_handler_without_an_annotation_is_refused():
    with pytest.raises(HandlerError, match=r"_mute does not say which event"):

        class Mute(Tracker):
            notify = Tracker.notify.extend()

            @notify.register
            def _mute(self, event): ...


def test_a_handler_without_an_argument_is_refused():
    with pytest.raises(HandlerError, match="does not say which event"):
        Notify().register(lambda self: None)


def test_a_local_event_class_is_named_in_the_decorator():
    @dataclasses.dataclass(frozen=True)
    class LocalEvent(Event):
        value: int

    with pytest.raises(
        HandlerError,
        match=r"_on_local cannot be found.*@notify\.register\(EventClass\)",
    ):

        class Failing(Tracker):
            notify = Tracker.notify.extend()

            @notify.register
            def _on_local(self, event: LocalEvent) -> None: ...

    class Working(Base):
        notify = Base.notify.extend()

        @notify.register(LocalEvent)
        def _on_local(self, event: LocalEvent) -> None:
            self.calls.append(f"local {event.value}")

    assert calls_for(Working(), LocalEvent.unpublished(3)) == ["local 3"]


def test_the_classic_form_is_checked_when_its_class_is_defined():
    with pytest.raises(HandlerError, match="no event class"):

        class Wrong(Tracker):
            @functools.singledispatchmethod
            def notify(self, event: Event) -> None:
                return super().notify(event)

            @notify.register
            def _(self, event: int) -> None: ...


@pytest.mark.parametrize("tracker", [Short(), Classic(), Tracker()])
@pytest.mark.parametrize("value", [None, 3, "MetricEvent", MetricEvent])
def test_notify_takes_events_alone(tracker, value):
    with pytest.raises(HandlerError, match="notify takes an event, got"):
        tracker.notify(value)
    with pytest.raises(HandlerError, match="notify takes an event, got"):
        type(tracker).notify(tracker, value)


# -- the classic form --------------------------------------------------------------


class MetadataVisualizer(Tracker):
    """Tracker that prints the metadata on the console."""

    @functools.singledispatchmethod
    @override
    def notify(self, event: log_events.Event) -> None:
        return super().notify(event)

    @notify.register
    def _(self, event: log_events.ModelRegistrationEvent) -> None:
        pprint.pp(event.architecture_repr)
        return super().notify(event)

    @notify.register
    def _(self, event: log_events.ActorRegistrationEvent) -> None:
        pprint.pp(event.metadata)
        return super().notify(event)


def test_the_classic_form_works_word_for_word(capsys):
    tracker = MetadataVisualizer()

    tracker.notify(log_events.ModelRegistrationEvent.unpublished("m", None, "Net()"))
    tracker.notify(
        log_events.ActorRegistrationEvent.unpublished("a", None, "m", None, {"lr": 1})
    )
    tracker.notify(METRIC)

    assert capsys.readouterr().out == "'Net()'\n{'lr': 1}\n"


def test_the_default_of_the_classic_form_gets_what_no_handler_takes():
    assert calls_for(Classic(), METRIC) == ["classic metric"]
    assert calls_for(Classic(), STEP) == ["classic default"]


def test_super_notify_reaches_every_class_of_the_line_once():
    class Middle(Classic):
        @functools.singledispatchmethod
        def notify(self, event: Event) -> None:
            return super().notify(event)

        @notify.register
        def _(self, event: StepMetricEvent) -> None:
            self.calls.append("middle step")
            return super().notify(event)

    class Last(Middle):
        @functools.singledispatchmethod
        def notify(self, event: Event) -> None:
            return super().notify(event)

        @notify.register
        def _(self, event: MetricEvent) -> None:
            self.calls.append("last metric")
            return super().notify(event)

    assert calls_for(Last(), METRIC) == ["last metric", "classic metric"]
    assert calls_for(Last(), STEP) == ["middle step", "classic default"]


def test_handlers_of_one_name_in_the_classic_form_call_each_other_once():
    class Parent(Base):
        @functools.singledispatchmethod
        def notify(self, event: Event) -> None:
            return super().notify(event)

        @notify.register
        def _on_metric(self, event: MetricEvent) -> None:
            self.calls.append("parent")
            return super().notify(event)

    class Child(Parent):
        @functools.singledispatchmethod
        def notify(self, event: Event) -> None:
            return super().notify(event)

        @notify.register
        def _on_metric(self, event: MetricEvent) -> None:
            self.calls.append("child")
            return super().notify(event)

    assert calls_for(Child(), METRIC) == ["child", "parent"]
    assert calls_for(Parent(), METRIC) == ["parent"]


def test_a_classic_class_over_a_short_one_reaches_its_handlers():
    class Over(Short):
        @functools.singledispatchmethod
        def notify(self, event: Event) -> None:
            return super().notify(event)

        @notify.register
        def _(self, event: MetricEvent) -> None:
            self.calls.append("over")
            return super().notify(event)

    assert calls_for(Over(), METRIC) == ["over", "short metric"]
    assert calls_for(Over(), TEXT) == ["short text"]


def test_a_classic_class_can_be_extended():
    class Extended(Classic):
        notify = Classic.notify.extend()

        @notify.register
        def _on_step(self, event: StepMetricEvent) -> None:
            self.calls.append("extended step")

    assert calls_for(Extended(), METRIC) == ["classic metric"]
    assert calls_for(Extended(), STEP) == ["extended step"]
    assert calls_for(Extended(), TEXT) == ["classic default"]
    assert calls_for(Classic(), STEP) == ["classic default"]


def test_a_plain_notify_takes_everything():
    class Plain(Base):
        def notify(self, event: Event) -> None:
            self.calls.append(type(event).__name__)

    assert calls_for(Plain(), METRIC) == ["MetricEvent"]
    assert calls_for(Plain(), STEP) == ["StepMetricEvent"]


# -- driven by hand ----------------------------------------------------------------


class Watched(Base):
    notify = Base.notify.extend()

    @notify.register
    def _on_start(self, event: log_events.StartExperimentEvent) -> None:
        self.calls.append(f"start {self.start_event.run_id}")
        self.enter_context(
            mock.MagicMock(__exit__=lambda *_: self.calls.append("left"))
        )

    @notify.register
    def _on_stop(self, event: log_events.StopExperimentEvent) -> None:
        self.calls.append(f"stop {self.start_event.run_id}")

    def flush(self) -> None:
        self.calls.append("flush")

    def clean_up(self) -> None:
        self.calls.append("clean up")


class ClassicWatched(Watched):
    @functools.singledispatchmethod
    def notify(self, event: Event) -> None:
        return super().notify(event)

    @notify.register
    def _(self, event: log_events.StopExperimentEvent) -> None:
        return super().notify(event)


@pytest.mark.parametrize("cls", [Watched, ClassicWatched])
def test_driving_by_hand_does_the_life_cycle(cls):
    tracker = cls()

    for _ in range(2):
        tracker.calls.clear()
        tracker.notify(START)
        tracker.notify(METRIC)
        tracker.notify(STOP)

        assert tracker.calls == ["start r", "stop r", "flush", "clean up", "left"]
        with pytest.raises(AccessOutsideScopeError, match="watches no run"):
            _ = tracker.start_event


def test_a_second_start_by_hand_leaves_what_the_first_one_entered():
    tracker = Watched()

    tracker.notify(START)
    tracker.notify(log_events.StartExperimentEvent.unpublished({}, "e", None, "second"))

    assert tracker.calls == ["start r", "left", "start second"]


def test_a_failure_at_the_stop_by_hand_still_leaves_everything():
    class Failing(Watched):
        def clean_up(self) -> None:
            super().clean_up()
            msg = "no"
            raise RuntimeError(msg)

    tracker = Failing()
    tracker.notify(START)

    with pytest.raises(RuntimeError, match="no"):
        tracker.notify(STOP)

    assert tracker.calls[-2:] == ["clean up", "left"]
