from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import pathlib
import pickle
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import drytrack
from drytrack.core import log_events
from drytrack.core.exceptions import (
    AccessOutsideScopeError,
    EventDefinitionError,
    EventValueError,
    InvalidNameError,
    MetricValueError,
)
from drytrack.core.log_events import Event, MetricEvent
from drytrack.core.track import Tracker

REQUIRED = inspect.Parameter.empty
EVENTS: dict[str, dict[str, Any]] = {
    "StartExperimentEvent": {
        "config": REQUIRED,
        "exp_name": REQUIRED,
        "run_ts": REQUIRED,
        "run_id": REQUIRED,
        "resumed": False,
        "par_dir": pathlib.Path(),
        "tags": [],
        "description": None,
        "attempt": 1,
    },
    "StopExperimentEvent": {
        "exp_name": REQUIRED,
        "run_id": REQUIRED,
        "status": "completed",
        "summary": {},
        "error": None,
    },
    "ModelRegistrationEvent": dict.fromkeys(
        ["model_name", "model_ts", "architecture_repr"], REQUIRED
    ),
    "ActorRegistrationEvent": dict.fromkeys(
        ["actor_name", "actor_ts", "model_name", "model_ts", "metadata"], REQUIRED
    ),
    "SaveModelEvent": dict.fromkeys(
        ["model_name", "definition", "location", "epoch"], REQUIRED
    ),
    "LoadModelEvent": dict.fromkeys(
        ["model_name", "definition", "location", "epoch"], REQUIRED
    ),
    "StartTrainingEvent": dict.fromkeys(
        ["source_name", "model_name", "start_epoch", "end_epoch"], REQUIRED
    ),
    "StartEpochEvent": {
        "source_name": REQUIRED,
        "model_name": REQUIRED,
        "epoch": REQUIRED,
        "end_epoch": None,
    },
    "EndEpochEvent": dict.fromkeys(["source_name", "model_name", "epoch"], REQUIRED),
    "IterateBatchEvent": {
        "source_name": REQUIRED,
        "batch_size": REQUIRED,
        "n_iter": REQUIRED,
        "dataset_size": REQUIRED,
        "push_updates": [],
    },
    "TerminatedTrainingEvent": dict.fromkeys(
        ["source_name", "model_name", "epoch", "reason"], REQUIRED
    ),
    "EndTrainingEvent": {"source_name": REQUIRED},
    "StartTestEvent": dict.fromkeys(["source_name", "model_name"], REQUIRED),
    "EndTestEvent": dict.fromkeys(["source_name", "model_name"], REQUIRED),
    "MetricEvent": dict.fromkeys(
        ["model_name", "source_name", "epoch", "metrics"], REQUIRED
    ),
    "LearningRateEvent": {
        "model_name": REQUIRED,
        "source_name": REQUIRED,
        "epoch": REQUIRED,
        "base_lr": None,
        "scheduler_name": None,
    },
    "StepMetricEvent": {
        "source_name": REQUIRED,
        "step": REQUIRED,
        "metrics": REQUIRED,
        "context": {},
        "axis": "step",
        "model_name": "",
    },
    "ParamsEvent": {"params": REQUIRED},
    "HistogramEvent": {
        "source_name": REQUIRED,
        "name": REQUIRED,
        "step": REQUIRED,
        "counts": REQUIRED,
        "bin_edges": REQUIRED,
        "context": {},
    },
    "ImageEvent": {
        "source_name": REQUIRED,
        "name": REQUIRED,
        "step": REQUIRED,
        "image": REQUIRED,
        "caption": None,
    },
    "FigureEvent": {
        "source_name": REQUIRED,
        "name": REQUIRED,
        "step": REQUIRED,
        "figure": REQUIRED,
        "caption": None,
    },
    "TableEvent": dict.fromkeys(
        ["source_name", "name", "step", "columns", "rows"], REQUIRED
    ),
    "TextEvent": dict.fromkeys(["source_name", "name", "step", "text"], REQUIRED),
    "ArtifactEvent": {
        "name": REQUIRED,
        "path": REQUIRED,
        "kind": REQUIRED,
        "metadata": {},
        "artifact_path": None,
    },
    "SummaryEvent": {"summary": REQUIRED},
}
SAMPLES: dict[str, Any] = {
    "config": {"lr": 0.1, "sizes": [1, 2]},
    "metadata": {"lr": 0.1},
    "epoch": 3,
    "step": 4,
    "start_epoch": 1,
    "end_epoch": 9,
    "batch_size": 32,
    "n_iter": 10,
    "dataset_size": 320,
    "metrics": {"loss": math.nan, "accuracy": 0.5},
    "params": {"a": {"b": 1}},
    "counts": [1.0, 2.0],
    "bin_edges": [0.0, 1.0, 2.0],
    "image": np.zeros((2, 3, 3), np.uint8),
    "figure": np.zeros((2, 3, 3), np.uint8),
    "columns": ["x", "y"],
    "rows": [[1, "a"], [2, "b"]],
    "path": pathlib.Path("a.txt"),
    "summary": {"best": 0.5},
}


def sample(name: str) -> Event:
    required = [field for field, value in EVENTS[name].items() if value is REQUIRED]
    values = [SAMPLES.get(field, f"the {field}") for field in required]
    return getattr(log_events, name).unpublished(*values)


@dataclasses.dataclass(frozen=True)
class PlainEvent(Event):
    source_name: str
    payload: Any
    labels: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class SlottedEvent(Event):
    source_name: str
    payload: Any = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ValidationMetricEvent(MetricEvent):
    fold: int
    note: str = "none"


class MarkedMetricEvent(MetricEvent):
    """A class of its own without fields of its own."""


class Keeper(Tracker):
    notify = Tracker.notify.extend()

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Event] = []

    @notify.register
    def _keep(self, event: Event) -> None:
        self.seen.append(event)


@pytest.fixture
def keeper(tmp_path):
    drytrack.init_trackers("none")
    experiment = drytrack.Experiment(name="e", par_dir=tmp_path)
    keeper = Keeper()
    experiment.trackers.subscribe(keeper)
    with experiment.create_run(record=False):
        keeper.seen.clear()
        yield keeper


# -- the events that there are ---------------------------------------------------


def test_no_public_event_is_missing_from_the_tables():
    classes = {
        name
        for name in log_events.__all__
        if isinstance(getattr(log_events, name), type)
        and issubclass(getattr(log_events, name), Event)
    }

    assert classes - {"Event", "UnknownEvent"} == set(EVENTS)


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_has_its_fields_in_order_with_their_defaults(name):
    cls = getattr(log_events, name)

    fields = dataclasses.fields(cls)
    event = sample(name)

    assert [field.name for field in fields] == list(EVENTS[name])
    for field, default in EVENTS[name].items():
        if default is not REQUIRED:
            assert getattr(event, field) == default


@pytest.mark.parametrize("name", EVENTS)
def test_creating_an_event_publishes_it_once(name, keeper):
    cls = getattr(log_events, name)
    silent = sample(name)
    values = [getattr(silent, field) for field in EVENTS[name]]

    by_position = cls(*values)
    by_name = cls(**dict(zip(EVENTS[name], values, strict=True)))

    assert [
        seen is event
        for seen, event in zip(keeper.seen, (by_position, by_name), strict=True)
    ] == [True, True]
    assert by_position == by_name == silent


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_without_its_fields_says_which_one_is_missing(name):
    first = next(iter(EVENTS[name]))
    cls = getattr(log_events, name)

    for create in (cls, cls.unpublished):
        with pytest.raises(TypeError, match=first):
            create()
        with pytest.raises(TypeError, match="surplus"):
            create(surplus=1)


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_cannot_be_changed(name):
    event = sample(name)
    field = next(iter(EVENTS[name]))

    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, field, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        delattr(event, field)
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        event.surplus = 1
    assert not hasattr(event, "__dict__")


def test_outside_a_run_nothing_can_be_published():
    with pytest.raises(
        AccessOutsideScopeError, match=r"MetricEvent was created outside a run\. Do"
    ):
        MetricEvent("m", "s", 1, {"loss": 1})


def test_a_refused_event_is_seen_by_nobody(keeper):
    with pytest.raises(MetricValueError):
        MetricEvent("m", "s", 1, {"accuracy": 1.0, "loss": None})
    with pytest.raises(InvalidNameError, match="source_name"):
        MetricEvent("m", "a\nb", 1, {"loss": 1.0})
    with pytest.raises(EventValueError, match="epoch"):
        MetricEvent("m", "s", "1", {"loss": 1.0})

    assert keeper.seen == []


def test_unpublished_is_silent_and_needs_no_run(keeper):
    event = MetricEvent.unpublished("m", "s", 1, {"loss": 1})

    assert keeper.seen == []
    assert event.stamp is None
    with pytest.raises(MetricValueError):
        MetricEvent.unpublished("m", "s", 1, {"loss": "x"})


# -- snapshots -------------------------------------------------------------------


def test_payloads_are_snapshots():
    metrics, config, tags = {"loss": 1.0}, {"deep": {"sizes": [1]}}, ["a"]
    image, rows = np.zeros((2, 3), np.uint8), [[1]]
    context, counts = {"split": "val"}, np.array([1.0])

    events = [
        MetricEvent.unpublished("m", "s", 1, metrics),
        log_events.StartExperimentEvent.unpublished(config, "e", None, "r", tags=tags),
        log_events.ImageEvent.unpublished("s", "n", 1, image),
        log_events.TableEvent.unpublished("s", "n", 1, ["x"], rows),
        log_events.StepMetricEvent.unpublished("s", 1, metrics, context),
        log_events.HistogramEvent.unpublished("s", "n", 1, counts, [0, 1]),
        PlainEvent.unpublished("s", {"array": image, "list": rows}, tags),
        SlottedEvent.unpublished("s", image),
    ]
    before = copy.deepcopy(events)
    metrics["loss"] = 2.0
    metrics["late"] = 3.0
    config["deep"]["sizes"].append(2)
    tags.append("b")
    image[:] = 9
    rows[0][0] = 9
    context["split"] = "train"
    counts[:] = 9

    assert events == before


def test_a_user_event_takes_a_snapshot_of_anything():
    array = np.zeros(2)
    objects = np.array([[1], [2, 3]], dtype=object)
    cycle: list[Any] = []
    cycle.append(cycle)
    lock = threading.Lock()
    payload = {
        "tuple": (array, [1]),
        "set": {1},
        "bytes": bytearray(b"ab"),
        "objects": objects,
        "function": len,
        "class": int,
        "path": pathlib.Path("x"),
    }

    kept = PlainEvent.unpublished("s", payload).payload
    array[:] = 1
    objects[1].append(4)
    payload["set"].add(2)
    payload["bytes"].extend(b"c")

    assert kept["tuple"][0].tolist() == [0.0, 0.0]
    assert kept["objects"][1] == [2, 3]
    assert kept["set"] == {1}
    assert kept["bytes"] == b"ab"
    assert (kept["function"], kept["class"], kept["path"]) == (
        len,
        int,
        pathlib.Path("x"),
    )
    for change in (
        lambda: kept["tuple"][0].fill(1),
        lambda: kept["tuple"][1].append(2),
        lambda: kept.update(a=1),
        lambda: kept["set"].add(3),
    ):
        with pytest.raises((TypeError, ValueError, AttributeError)):
            change()
    assert PlainEvent.unpublished("s", lock).payload is not lock
    assert PlainEvent.unpublished("s", cycle).payload is not cycle


@pytest.mark.torch
def test_a_user_event_copies_tensors():
    import torch

    tensor = torch.zeros(2, requires_grad=True)

    kept = SlottedEvent.unpublished("s", {"grad": tensor}).payload["grad"]
    with torch.no_grad():
        tensor.fill_(1)

    assert kept.tolist() == [0.0, 0.0]
    assert not kept.requires_grad


# -- events of the user's own ----------------------------------------------------


@pytest.mark.parametrize(
    ("create", "fields"),
    [
        (lambda: PlainEvent("s", 1), {"source_name": "s", "payload": 1, "labels": []}),
        (
            lambda: PlainEvent(payload=1, source_name="s", labels=["a"]),
            {"labels": ["a"]},
        ),
        (lambda: SlottedEvent("s"), {"source_name": "s", "payload": None}),
        (
            lambda: ValidationMetricEvent("m", "s", 1, {"loss": 1}, fold=2),
            {"metrics": {"loss": 1.0}, "fold": 2, "note": "none"},
        ),
        (
            lambda: MarkedMetricEvent("m", "s", 1, {"loss": 1}),
            {"metrics": {"loss": 1.0}},
        ),
    ],
)
def test_an_event_of_the_users_own_is_published(create, fields, keeper):
    for _ in range(2):  # the first compiles the constructor
        event = create()

        assert keeper.seen.pop() is event
        assert {name: getattr(event, name) for name in fields} == fields
    assert keeper.seen == []


def test_derived_events_keep_the_doors_of_their_parents():
    for cls, more in ((ValidationMetricEvent, {"fold": 1}), (MarkedMetricEvent, {})):
        with pytest.raises(MetricValueError):
            cls.unpublished("m", "s", 1, {"loss": "x"}, **more)


def test_defaults_that_are_made_are_made_for_each_event(keeper):
    numbers = iter(range(10))

    @dataclasses.dataclass(frozen=True)
    class Numbered(Event):
        drawn: list[int] = dataclasses.field(default_factory=lambda: [next(numbers)])

    assert [Numbered().drawn for _ in range(3)] == [[0], [1], [2]]
    batches = [log_events.IterateBatchEvent("s", 1, 1, 1) for _ in range(2)]
    batches[0].push_updates.append(print)
    assert batches[1].push_updates == []


def test_a_field_may_have_any_name(keeper):
    @dataclasses.dataclass(frozen=True)
    class Named(Event):
        type: str
        str: int
        int: Any
        known_names: list[Any]
        get_routes: bool = True
        deliver: None = None
        cls: Any = "default"
        event: Any = dataclasses.field(default_factory=dict)

    for create in (Named, Named, Named.unpublished):
        event = create("a", 1, 2.5, [3])
        assert dataclasses.astuple(event) == (
            "a",
            1,
            2.5,
            [3],
            True,
            None,
            "default",
            {},
        )
    assert len(keeper.seen) == 2


def test_a_field_that_is_not_an_argument_keeps_its_default(keeper):
    @dataclasses.dataclass(frozen=True)
    class Versioned(Event):
        source_name: str
        version: int = dataclasses.field(default=3, init=False)
        parts: list[int] = dataclasses.field(default_factory=lambda: [1], init=False)

    for event in (Versioned("s"), Versioned("s")):
        assert (event.version, event.parts) == (3, [1])
    with pytest.raises(TypeError, match="version"):
        Versioned("s", version=4)


@pytest.mark.parametrize("slots", [False, True])
def test_an_overridden_default_is_stored_and_read_back(slots, keeper):
    class Defaulted(log_events.StartEpochEvent):
        end_epoch: int | None = 7

    cls = dataclasses.dataclass(frozen=True, slots=slots)(Defaulted)

    assert cls("s", "m", 1).end_epoch == 7
    assert cls("s", "m", 1, 9).end_epoch == 9
    assert keeper.seen[-1].end_epoch == 9


@pytest.mark.parametrize("slots", [False, True])
@pytest.mark.parametrize("method", ["__init__", "__post_init__", "__new__"])
def test_a_constructor_of_its_own_is_refused_when_the_class_is_defined(method, slots):
    with pytest.raises(
        EventDefinitionError, match=rf"Hasty defines {method}.*before_publish"
    ):
        type(
            "Hasty",
            (Event,),
            {method: lambda self: None, "__slots__": () if slots else ("a",)},
        )


def test_an_event_class_that_is_not_frozen_is_refused_when_it_is_defined():
    with pytest.raises(TypeError, match="non-frozen"):

        @dataclasses.dataclass
        class Loose(Event):
            value: int


def test_an_init_variable_is_refused(keeper):
    @dataclasses.dataclass(frozen=True)
    class WithInitVar(Event):
        value: int
        scale: dataclasses.InitVar[int]

    for create in (WithInitVar, WithInitVar.unpublished):
        with pytest.raises(
            EventDefinitionError, match=r"WithInitVar has an InitVar.*Make it a"
        ):
            create(1, 2)
    assert keeper.seen == []


def define_checked(decorate: bool, slots: bool) -> type[Event]:
    class Checked(log_events.TextEvent):
        def before_publish(self) -> None:
            if self.text == "bad":
                msg = f"text {self.text!r} is bad"
                raise ValueError(msg)

    return (
        dataclasses.dataclass(frozen=True, slots=slots)(Checked)
        if decorate
        else Checked
    )


@pytest.mark.parametrize(
    ("decorate", "slots"), [(True, True), (True, False), (False, False)]
)
@pytest.mark.parametrize("parent_first", [True, False])
def test_before_publish_refuses_an_event_before_anybody_sees_it(
    decorate, slots, parent_first, keeper
):
    if parent_first:
        log_events.TextEvent("s", "n", 1, "bad")
        keeper.seen.clear()
    checked = define_checked(decorate, slots)

    for create in (checked, checked.unpublished):
        with pytest.raises(ValueError, match="text 'bad' is bad"):
            create("s", "n", 1, "bad")
    assert keeper.seen == []
    event = checked("s", "n", 1, "good")
    assert keeper.seen == [event]


def test_the_first_instances_of_a_class_may_be_made_by_eight_threads_at_once(keeper):
    for _ in range(20):

        @dataclasses.dataclass(frozen=True, slots=True)
        class Fresh(Event):
            number: int
            labels: list[int] = dataclasses.field(default_factory=list)

        barrier = threading.Barrier(8)
        errors = []

        def publish(
            number: int, cls: type = Fresh, barrier: Any = barrier, errors: Any = errors
        ) -> None:
            try:
                barrier.wait()
                for _ in range(5):
                    assert cls(number).number == number
            except BaseException as err:  # noqa: BLE001  # reported below
                errors.append(err)

        threads = [threading.Thread(target=publish, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert errors == []
        assert sorted(event.number for event in keeper.seen) == sorted([*range(8)] * 5)
        keeper.seen.clear()


# -- copies and comparison -------------------------------------------------------


def sampled() -> list[Event]:
    return [
        *map(sample, EVENTS),
        PlainEvent.unpublished("s", {"a": [np.arange(3.0), math.nan]}, ["x"]),
        SlottedEvent.unpublished("s", (1, {"b": None})),
        ValidationMetricEvent.unpublished("m", "s", 1, {"loss": math.inf}, fold=1),
        MarkedMetricEvent.unpublished("m", "s", 1, {"loss": math.nan}),
    ]


@pytest.mark.parametrize("event", sampled(), ids=lambda event: type(event).__name__)
@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda event: pickle.loads(pickle.dumps(event))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_are_equal_and_silent(event, duplicate, keeper):
    again = duplicate(event)

    assert type(again) is type(event)
    assert again == event
    assert hash(again) == hash(event)
    assert keeper.seen == []


@pytest.mark.parametrize("event", sampled(), ids=lambda event: type(event).__name__)
def test_an_event_as_a_dictionary_holds_its_fields(event):
    as_dict = dataclasses.asdict(event)

    assert list(as_dict) == [field.name for field in dataclasses.fields(event)]
    assert type(event).unpublished(**as_dict) == event


def test_an_event_unpickles_in_a_process_that_has_made_none():
    data = pickle.dumps(sample("MetricEvent"))
    code = (
        f"import pickle; event = pickle.loads({data!r});"
        "assert event.metrics['accuracy'] == 0.5; assert event.epoch == 3"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_replace_publishes_the_new_event(keeper):
    event = MetricEvent("m", "s", 1, {"loss": 1})

    replaced = dataclasses.replace(event, epoch=2)

    assert keeper.seen == [event, replaced]
    assert (replaced.epoch, replaced.metrics) == (2, event.metrics)


def test_events_differ_by_class_and_by_each_field():
    events = sampled()
    for number, event in enumerate(events):
        assert [event == other for other in events] == [
            other == number for other in range(len(events))
        ]
    assert len(set(events)) == len(events)
    base = {"model_name": "m", "source_name": "s", "epoch": 1, "metrics": {"loss": 1.0}}
    for change in (
        {"model_name": "n"},
        {"source_name": "t"},
        {"epoch": 2},
        {"metrics": {"loss": 2}},
    ):
        assert MetricEvent.unpublished(**base) != MetricEvent.unpublished(
            **{**base, **change}
        )


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), True),
        (np.array([1.0, 2.0]), np.array([1.0, 3.0]), False),
        (np.array([1.0]), np.array([1.0, 1.0]), False),
        (np.array([1.0]), np.array([1]), False),
        (np.array(["a", "b"]), np.array(["a", "b"]), True),
        (np.array([1.0]), [1.0], False),
        (math.nan, math.nan, True),
        ({"a": [math.nan]}, {"a": [math.nan]}, True),
        ({"a": 1}, {"b": 1}, False),
        ([1, 2], [1], False),
        (1, 1.0, True),
        (1, "1", False),
        (None, 0, False),
    ],
)
def test_payloads_are_compared_by_content(left, right, equal):
    first, second = (SlottedEvent.unpublished("s", value) for value in (left, right))

    assert (first == second) is equal
    if equal:
        assert hash(first) == hash(second)


def test_data_frames_are_compared_by_content():
    for library in (pd, pl):
        frame, other = (
            library.DataFrame({"a": [1, 2]}),
            library.DataFrame({"a": [1, 3]}),
        )
        event = SlottedEvent.unpublished("s", frame)
        assert event == SlottedEvent.unpublished("s", frame)
        assert event != SlottedEvent.unpublished("s", other)


def test_a_field_that_is_not_compared_changes_neither_equality_nor_hash():
    @dataclasses.dataclass(frozen=True)
    class Timed(Event):
        name: str
        seconds: int = dataclasses.field(compare=False)

    first, second = Timed.unpublished("n", 1), Timed.unpublished("n", 2)

    assert first == second
    assert hash(first) == hash(second)


def test_handlers_cannot_change_what_the_next_one_sees(tmp_path):
    class Vandal(Tracker):
        notify = Tracker.notify.extend()

        @notify.register
        def _change(self, event: MetricEvent) -> None:
            changes: list[Any] = [
                lambda: event.metrics.update(loss=0.0),
                lambda: event.metrics.__setitem__("loss", 0.0),
                lambda: setattr(event, "epoch", 0),
            ]
            for change in changes:
                with pytest.raises((TypeError, AttributeError)):
                    change()

    drytrack.init_trackers("none")
    experiment = drytrack.Experiment(name="e", par_dir=tmp_path)
    keeper = Keeper()
    experiment.trackers.subscribe(Vandal(), keeper)

    metrics: Mapping[str, float] = {"loss": 1.0}
    with experiment.create_run(record=False):
        MetricEvent("m", "s", 1, metrics)

    (event,) = [event for event in keeper.seen if isinstance(event, MetricEvent)]
    assert (event.epoch, event.metrics) == (1, {"loss": 1.0})
