"""Events as lines of a journal, and back."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import fractions
import importlib.util
import json
import math
import pathlib
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drytrack.core import _codec, log_events
from drytrack.core._media import MediaFile
from drytrack.core.exceptions import JournalError
from drytrack.core.journal import JournalReader, JournalWriter
from drytrack.core.log_events import Event, UnknownEvent

WHEN = datetime.datetime(2026, 11, 20, 23, 12, 1, 5)
HARD_NAMES = ["train/loss", "$float", "$dict", "größe", "a b", '"quoted"', "\\"]


@dataclasses.dataclass(frozen=True)
class AnyEvent(Event):
    value: Any


@dataclasses.dataclass(frozen=True, slots=True)
class SlottedEvent(Event):
    source_name: str
    metrics: Any
    note: str = "none"


@dataclasses.dataclass(frozen=True)
class WithCallback(Event):
    name: str
    on_done: Any = None


class Colour(str, enum.Enum):  # noqa: UP042  # its text would be its name
    RED = "red"


class Point(tuple):
    __slots__ = ()


def write(folder, *events):
    """Write a journal; return its lines as plain JSON."""
    problems = []
    writer = JournalWriter(folder, 1, tell=problems.append)
    for event in events:
        writer.append(event)
    writer.close()
    assert problems == []
    raw = (folder / "journal.jsonl").read_bytes()
    return [json.loads(line) for line in raw.split(b"\n")[:-1]]


def round_trip(folder, event):
    lines = write(folder, event)
    reader = JournalReader(folder)
    (found,) = reader
    assert reader.damage == []
    assert found.stamp.seq == lines[-1]["seq"]
    return found


def same_after_round_trip(folder, value):
    found = round_trip(folder, AnyEvent.unpublished(value))
    assert found == AnyEvent.unpublished(value)
    return found.value


E = log_events
ALL_EVENTS = [
    E.StartExperimentEvent.unpublished(
        {"lr": 0.1, "nested": {"deep": [1, None, math.nan]}, "$key": 1},
        "E",
        WHEN,
        "run",
        resumed=True,
        par_dir=pathlib.Path("a") / "b",
        tags=["x", "y"],
        description="ö",
        attempt=3,
    ),
    E.StopExperimentEvent.unpublished(
        "E", "run", "failed", {"best": math.inf}, {"type": "ValueError", "message": ""}
    ),
    E.ModelRegistrationEvent.unpublished("m", WHEN, "Net(\n  1\n)"),
    E.ActorRegistrationEvent.unpublished("a", WHEN, "m", WHEN, {"k": [1, 2]}),
    E.SaveModelEvent.unpublished("m", "checkpoint", pathlib.Path("m.pt"), 3),
    E.SaveModelEvent.unpublished("m", "weights", "s3://bucket/m.pt", None),
    E.LoadModelEvent.unpublished("m", "checkpoint", pathlib.Path("m.pt"), None),
    E.StartTrainingEvent.unpublished("s", "m", 1, 10),
    E.StartEpochEvent.unpublished("s", "m", 1, 10),
    E.EndEpochEvent.unpublished("s", "m", 1),
    E.IterateBatchEvent.unpublished("s", 32, None, 1000),
    E.TerminatedTrainingEvent.unpublished("s", "m", 3, "patience"),
    E.EndTrainingEvent.unpublished("s"),
    E.StartTestEvent.unpublished("s", "m"),
    E.EndTestEvent.unpublished("s", "m"),
    E.MetricEvent.unpublished("m", "s", 1, dict.fromkeys(HARD_NAMES, 0.5)),
    E.MetricEvent.unpublished("m", "s", 1, {"a": math.nan, "b": -math.inf, "c": 1}),
    E.LearningRateEvent.unpublished("m", "s", 1, {"body": 0.1}, "cosine"),
    E.LearningRateEvent.unpublished("m", "s", 1, [0.1, math.nan]),
    E.StepMetricEvent.unpublished("s", 7, {"loss": 0.25}),
    E.StepMetricEvent.unpublished("s", -7, {"loss": math.nan, "$dict": 1.0}),
    E.StepMetricEvent.unpublished("s", 0, {}, {"split": "val"}, "sample", "m"),
    E.StepMetricEvent.unpublished(
        "s", 2**62, dict.fromkeys(HARD_NAMES, math.nan), {"$float": "x", "b": 1.5}
    ),
    E.ParamsEvent.unpublished({"lr": 1, "nested": {"$x": None}}),
    E.HistogramEvent.unpublished("s", "h", 1, [1, 2], [0, 0.5, 1], {"layer": 3}),
    E.ImageEvent.unpublished("s", "i", 1, np.zeros((4, 5, 3), np.uint8), "caption"),
    E.FigureEvent.unpublished("s", "f", 1, MediaFile("png", b"\x89PNG")),
    E.TableEvent.unpublished("s", "t", 1, ["a", "b"], [[1, "x"], [None, math.nan]]),
    E.TextEvent.unpublished("s", "t", 1, "line\nline\u2028\x00\x1b"),
    E.ArtifactEvent.unpublished("n", pathlib.Path("a"), "model", {"hash": "x"}, "f"),
    E.UnknownEvent.unpublished("other:Thing", {"a": 1}),
    E.SummaryEvent.unpublished({"best": math.nan, "at": {"epoch": 3}}),
]


def test_every_event_type_is_among_the_samples():
    public = {getattr(log_events, name) for name in log_events.__all__}
    defined = {cls for cls in public if issubclass(cls, Event)} - {Event}

    assert {type(event) for event in ALL_EVENTS} == defined


@pytest.mark.parametrize("event", ALL_EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_type_reads_back_as_it_was(tmp_path, event):
    found = round_trip(tmp_path, event)

    assert found == event
    assert type(found) is type(event)


def test_a_file_of_all_events_is_valid_json_lines(tmp_path):
    lines = write(tmp_path, *ALL_EVENTS)

    assert [line["seq"] for line in lines] == list(range(1, len(ALL_EVENTS) + 1))
    assert {line["v"] for line in lines} == {1}
    raw = (tmp_path / "journal.jsonl").read_bytes()
    for word in (b"NaN", b"Infinity"):
        assert word not in raw


def test_what_is_read_cannot_be_changed(tmp_path):
    found = round_trip(tmp_path, E.MetricEvent.unpublished("m", "s", 1, {"a": 1.0}))

    with pytest.raises(TypeError, match="belongs to an event"):
        found.metrics["a"] = 2.0


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**64 - 1,
        2**64,
        -(2**200),
        16**5000,
        0.1,
        -0.0,
        math.inf,
        "",
        "lone \ud800 surrogate",
        "\\ud800 is text",
        b"",
        b"\x00\xff",
        [],
        [1, [2, [3]]],
        (1, (2,), []),
        {1, 2, 3},
        frozenset({(1, "a"), (2, "b")}),
        {},
        {"$float": "nan"},
        {"$dict": [[1, 2]]},
        {"$unknown": {"$path": "x"}},
        {1: "a", None: "b", False: "c", 2.5: "d"},
        {(1, 2): "pair", ("a", ("b",)): "nested"},
        {"lone \udfff": 1},
        {"deep": {"$er": {"est": [{"$json": "x"}]}}},
        pathlib.Path("a/b"),
        pathlib.Path("odd \udce9"),
        WHEN,
        WHEN.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=30))),
        {"inner": [WHEN, pathlib.Path("x"), b"blob", math.nan]},
        list(range(1000)),
        collections.OrderedDict(b=1, a=2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_user_puts_in_an_event_reads_back_as_it_was(tmp_path, value):
    same_after_round_trip(tmp_path, value)


def test_nan_reads_back_as_nan(tmp_path):
    found = same_after_round_trip(tmp_path, [math.nan, -math.inf])

    assert math.isnan(found[0])


@pytest.mark.parametrize("field", [math.nan, pathlib.Path("x"), {"$float": 1.0}, [1]])
def test_a_field_that_is_called_metrics_may_hold_anything(tmp_path, field):
    event = SlottedEvent.unpublished("s", field)

    assert round_trip(tmp_path, event) == event


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.array(3.5),
        np.zeros((0, 4), np.int8),
        np.array([1 + 2j]),
        np.array(["2026-11-20"], "M8[ns]"),
        np.array(["a", "bcd"]),
        np.arange(10)[::-2],
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array([True, False]),
        np.arange(3, dtype=">i4"),
    ],
    ids=lambda array: array.dtype.str,
)
def test_an_array_reads_back_with_type_and_shape_and_read_only(tmp_path, array):
    found = same_after_round_trip(tmp_path, array)

    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert not found.flags.writeable


@pytest.mark.torch
def test_a_tensor_becomes_an_array_and_one_that_cannot_costs_nothing_else(tmp_path):
    import torch

    good = AnyEvent.unpublished(torch.arange(3, requires_grad=False))
    odd = SlottedEvent.unpublished("s", torch.zeros(2, dtype=torch.bfloat16))

    write(tmp_path, good, odd)
    first, second = JournalReader(tmp_path)

    assert first.value.tolist() == [0, 1, 2]
    assert second.source_name == "s"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, "red"),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.str_("x"), "x"),
        (datetime.date(2026, 11, 20), "2026-11-20"),
        (fractions.Fraction(1, 2), None),
        (pd.NaT, None),
        (np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]), None),
        (np.array([object()], object), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_file_knows_becomes_plain_data(tmp_path, value, plain):
    event = SlottedEvent.unpublished("kept", value)

    found = round_trip(tmp_path, event)

    assert found.source_name == "kept"
    if plain is not None:
        assert found.metrics == plain


def test_a_time_stamp_of_pandas_reads_back(tmp_path):
    stamp = pd.Timestamp("2026-11-20 23:12:01.000005")

    assert same_after_round_trip(tmp_path, stamp) == stamp


def test_a_value_that_is_nested_too_deep_is_kept_as_far_as_it_can_be(tmp_path):
    deep: Any = "bottom"
    for _ in range(400):
        deep = [deep]

    found = round_trip(tmp_path, SlottedEvent.unpublished("kept", deep))

    assert found.source_name == "kept"
    assert isinstance(found.metrics, list)


def test_callbacks_are_left_out(tmp_path):
    event = WithCallback.unpublished("a", lambda: None)
    batch = E.IterateBatchEvent.unpublished("s", 1, 1, 1, [lambda metrics, n: None])

    first, second = write(tmp_path, event, batch)
    found = list(JournalReader(tmp_path))

    assert first["fields"] == {"name": "a"}
    assert "push_updates" not in second["fields"]
    assert found[0] == WithCallback.unpublished("a")
    assert found[1].push_updates == []


def test_large_content_is_kept_once_by_its_hash(tmp_path):
    image = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    events = [E.ImageEvent.unpublished("s", "i", step, image) for step in range(5)]

    lines = write(tmp_path, *events)

    (blob,) = (tmp_path / "blobs").iterdir()
    assert lines[0]["fields"]["image"] == {"$array": ["|u1", [10, 10, 3], blob.name]}
    assert [event.step for event in JournalReader(tmp_path)] == list(range(5))


def test_a_long_table_is_kept_beside_the_journal(tmp_path):
    rows = [[number, "x" * 100, math.nan] for number in range(1000)]
    event = E.TableEvent.unpublished("s", "t", 1, ["a", "b", "c"], rows)

    (line,) = write(tmp_path, event)

    assert list(line["fields"]["rows"]) == ["$json"]
    (found,) = JournalReader(tmp_path)
    assert found == event


class Later:
    """Makes event classes that are the same to a journal."""

    @staticmethod
    def define(*fields):
        cls = dataclasses.make_dataclass("Event1", fields, bases=(Event,), frozen=True)
        cls.__module__, cls.__qualname__ = "some.module", "Event1"
        return cls


def test_an_unknown_type_is_kept_and_written_again_as_it_was(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(), two.mkdir()
    fields = {"a": math.nan, "path": pathlib.Path("x"), "m": {"$k": 1}}
    (line,) = write(one, UnknownEvent.unpublished("gone:Event2", fields))

    (found,) = JournalReader(one)
    (again,) = write(two, found)

    assert isinstance(found, UnknownEvent)
    assert found.type_name == "gone:Event2"
    assert again["type"] == line["type"] == "gone:Event2"
    assert again["fields"] == line["fields"]


def test_a_class_that_has_changed_since_leaves_an_unknown_event(tmp_path):
    old = Later.define("a", "b")
    write(tmp_path, old.unpublished(1, 2))
    new = Later.define("a", "c")

    (found,) = JournalReader(tmp_path)

    assert isinstance(found, UnknownEvent)
    assert found.fields == {"a": 1, "b": 2}
    assert new.__name__ == "Event1"  # alive while the journal was read


def test_of_two_classes_of_one_name_the_last_one_counts(tmp_path):
    old = Later.define("a", "b")
    new = Later.define("a", "b")
    write(tmp_path, old.unpublished(1, 2))

    (found,) = JournalReader(tmp_path)

    assert type(found) is new


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.binary(max_size=20)
    | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=5)
        | st.dictionaries(st.sampled_from(HARD_NAMES), inner, max_size=2)
        | st.tuples(inner, inner)
    ),
    max_leaves=20,
)


@given(value=PLAIN)
def test_any_plain_value_reads_back_as_it_was(value):
    blobs: dict[str, bytes] = {}

    def put(data):
        blobs[_codec.blob_name(data)] = data
        return _codec.blob_name(data)

    text = _codec.dumps(_codec.encode(AnyEvent.unpublished(value).value, put))
    get = _codec.Blobs(blobs.__getitem__, 10**6)
    found = _codec.decode(json.loads(text), get)

    assert AnyEvent.unpublished(found) == AnyEvent.unpublished(value)


@pytest.mark.parametrize(
    "tagged",
    [
        {"$os.system": "true"},
        {"$float": []},
        {"$float": "one"},
        {"$int": 7},
        {"$text": "ö"},
        {"$datetime": "yesterday"},
        {"$path": 7},
        {"$bytes": "../../etc/passwd"},
        {"$bytes": "0" * 64},
        {"$media": ["png"]},
        {"$array": ["O", [1], "0" * 64]},
        {"$array": ["f8", [1 << 60], "0" * 64]},
        {"$set": [{}]},
        {"$dict": {"a": 1}},
        {"$json": None},
    ],
    ids=lambda tagged: next(iter(tagged)),
)
def test_a_tag_that_makes_no_sense_is_an_error_that_says_which(tmp_path, tagged):
    (tmp_path / "blobs").mkdir()
    get = _codec.Blobs(JournalReader(tmp_path).get_blob, 10**6)

    with pytest.raises(JournalError):
        _codec.decode({"a": [tagged]}, get)


def test_blobs_that_name_each_other_do_not_fill_the_memory(tmp_path):
    inner = _codec.dumps([0] * 1000)
    blobs = {_codec.blob_name(inner): inner}
    for _ in range(5):  # 100 ** 5 times 1000 numbers
        name = next(reversed(blobs))
        outer = _codec.dumps([{"$json": name}] * 100)
        blobs[_codec.blob_name(outer)] = outer
    get = _codec.Blobs(blobs.__getitem__, 10**6)

    with pytest.raises(JournalError, match="too long together"):
        _codec.decode({"$json": next(reversed(blobs))}, get)


def test_looking_for_a_type_finds_event_classes_alone_and_imports_nothing():
    before = set(sys.modules)
    name = "wave" if "wave" not in before else "chunk"
    assert importlib.util.find_spec(name)

    for wanted in (
        "os:system",
        "subprocess:Popen",
        "builtins:exec",
        "drytrack.core.journal:JournalWriter",
        f"{name}:Wave_read",
        "object",
        "Tracker",
        "",
    ):
        assert _codec.find_type(wanted) is None

    assert set(sys.modules) == before
