from __future__ import annotations

import math
import pathlib
import struct
import threading
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drytrack.core.exceptions import EventValueError, InvalidNameError, MetricValueError
from drytrack.core.log_events import (
    ArtifactEvent,
    HistogramEvent,
    LearningRateEvent,
    LoadModelEvent,
    MetricEvent,
    ParamsEvent,
    SaveModelEvent,
    StartExperimentEvent,
    StepMetricEvent,
    TableEvent,
    TextEvent,
)

NUMBERS = {
    "nan": (math.nan, math.nan),
    "inf": (math.inf, math.inf),
    "-inf": (-math.inf, -math.inf),
    "int": (3, 3.0),
    "bool": (True, 1.0),
    "negative zero": (-0.0, -0.0),
    "huge int": (2**70 + 1, float(2**70 + 1)),
    "largest": (10**308, 1e308),
    "Fraction": (Fraction(1, 3), 1 / 3),
    "Decimal": (Decimal("0.1"), 0.1),
    "Decimal NaN": (Decimal("NaN"), math.nan),
    "Decimal inf": (Decimal("-Infinity"), -math.inf),
    "float16": (np.float16(0.1), float(np.float16(0.1))),
    "float32": (np.float32(0.1), float(np.float32(0.1))),
    "float64": (np.float64(0.1), 0.1),
    "longdouble": (np.longdouble("0.1"), float(np.longdouble("0.1"))),
    "int64": (np.int64(-7), -7.0),
    "uint8": (np.uint8(255), 255.0),
    "np.bool": (np.bool_(True), 1.0),
    "np.inf": (np.float32(np.inf), math.inf),
    "0-d": (np.array(2.5), 2.5),
    "one element": (np.array([2.5]), 2.5),
    "one element, 3-d": (np.array([[[2.5]]], dtype=np.float32), 2.5),
    "object array": (np.array(Fraction(1, 2), dtype=object), 0.5),
    "masked": (np.ma.masked, math.nan),
    "masked mean": (np.ma.array([1.0, 2.0], mask=[True, True]).mean(), math.nan),
    "one masked": (np.ma.array([1.0], mask=[True]), math.nan),
    "not masked": (np.ma.array([1.5], mask=[False]), 1.5),
}
NO_NUMBERS = {
    "None": (None, "NoneType"),
    "str": ("1.5", "str"),
    "bytes": (b"1.5", "bytes"),
    "complex": (1 + 0j, "complex"),
    "list": ([1.0] * 32, "list of length 32"),
    "tuple": ((1.0,), "tuple of length 1"),
    "mapping": ({}, "dict of length 0"),
    "set": ({1.0}, "set of length 1"),
    "object": (object(), "object"),
    "function": (len, "builtin_function_or_method"),
    "(3,)-array": (np.zeros(3), r"ndarray of shape \(3,\) and type float64"),
    "empty array": (np.zeros((0, 2)), r"ndarray of shape \(0, 2\)"),
    "datetime64": (np.datetime64("2026-01-01"), r"datetime64 of shape \(\) and type"),
    "timedelta64": (np.timedelta64(1, "s"), "timedelta64"),
    "text array": (np.array("1.5"), r"ndarray of shape \(\) and type <U3"),
    "object text": (np.array("1.5", dtype=object), "ndarray of shape"),
    "complex array": (np.array(1j), "complex128"),
    "structured": (np.zeros(1, dtype=[("a", "f4")]), "ndarray of shape"),
    "signalling NaN": (Decimal("sNaN"), "Decimal"),
    "too large int": (10**400, "int of 1329 bits"),
    "too large Fraction": (Fraction(10**400), "Fraction"),
    "too large Decimal": (Decimal("1e999"), "Decimal"),
    "too large longdouble": (np.longdouble("1e4000"), "longdouble"),
}


def bits(number: float) -> bytes:
    return b"nan" if math.isnan(number) else struct.pack("<d", number)


def metric(value: object) -> float:
    return MetricEvent.unpublished("m", "s", 1, {"loss": value}).metrics["loss"]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_becomes_the_same_float64(name):
    value, expected = NUMBERS[name]

    found = metric(value)

    assert type(found) is float
    assert bits(found) == bits(expected)


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_what_is_no_number_is_refused_by_metric_type_and_shape(name):
    value, described = NO_NUMBERS[name]
    if name == "too large longdouble" and np.finfo(np.longdouble).maxexp <= 1024:
        pytest.skip("long doubles are doubles here")

    with pytest.raises(MetricValueError, match=rf"^metric 'loss' must .*{described}"):
        metric(value)


@given(st.one_of(st.floats(), st.integers(-(2**1023), 2**1023), st.fractions()))
def test_any_number_comes_out_as_float_makes_it(value):
    assert bits(metric(value)) == bits(float(value))


@pytest.mark.torch
def test_tensors_of_one_element_are_numbers():
    import torch

    good = [
        torch.tensor(0.5),
        torch.tensor([[0.5]]),
        torch.tensor(0.5, dtype=torch.bfloat16),
        torch.tensor(0.5, dtype=torch.float16),
        torch.tensor([0.5], requires_grad=True),
        torch.nn.Parameter(torch.tensor(0.5)),
    ]

    assert [metric(value) for value in good] == [0.5] * len(good)
    assert metric(torch.tensor(True)) == 1.0
    assert metric(torch.tensor(7)) == 7.0
    assert math.isnan(metric(torch.tensor(math.nan)))


@pytest.mark.torch
@pytest.mark.parametrize("what", ["three", "empty", "complex", "meta"])
def test_tensors_that_are_no_number_are_refused_by_shape(what):
    import torch

    bad = {
        "three": torch.zeros(3),
        "empty": torch.zeros(0),
        "complex": torch.tensor(1j),
        "meta": torch.zeros(1, device="meta"),
    }

    with pytest.raises(MetricValueError, match=r"'loss' .*Tensor of shape \("):
        metric(bad[what])


def test_anything_with_an_item_that_gives_a_number_is_one():
    class Lazy:
        def item(self) -> float:
            return 0.25

    class Broken:
        def item(self) -> float:
            raise RuntimeError("device lost")

    assert metric(Lazy()) == 0.25
    with pytest.raises(MetricValueError, match="Broken") as caught:
        metric(Broken())
    assert str(caught.value.__cause__) == "device lost"


@pytest.mark.parametrize("value", [None, 3, "ab", ["loss"], {"loss"}])
def test_metrics_that_are_no_mapping_are_refused(value):
    with pytest.raises(EventValueError, match="metrics must map names to numbers"):
        MetricEvent.unpublished("m", "s", 1, value)


@pytest.mark.parametrize("name", ["", "a\nb", "a\0b", "\ud800", 3, None, "x" * 1001])
def test_a_metric_with_a_bad_name_is_refused(name):
    with pytest.raises(InvalidNameError, match="metric name"):
        MetricEvent.unpublished("m", "s", 1, {name: 1.0})


@pytest.mark.parametrize("name", ["a/b", "..", "🔥", "x" * 300, "a b", "train/loss"])
def test_a_metric_with_an_odd_name_is_kept_exactly(name):
    for _ in range(2):  # checked, then known
        event = MetricEvent.unpublished(name, name, 1, {name: 1.0})
        assert (event.model_name, event.source_name) == (name, name)
        assert list(event.metrics) == [name]


def test_metrics_keep_their_order():
    names = [f"metric {number}" for number in (3, 1, 2)]

    event = StepMetricEvent.unpublished("s", 1, dict.fromkeys(names, 1))

    assert list(event.metrics) == names


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (True, 1),
        (3.0, 3),
        (np.int32(3), 3),
        (np.array(3), 3),
        (-(2**63), -(2**63)),
    ],
)
def test_a_step_may_be_any_integer(value, expected):
    step = TextEvent.unpublished("s", "n", value, "t").step

    assert (type(step), step) == (int, expected)


@pytest.mark.parametrize(
    ("value", "described"),
    [
        (1.5, "float 1.5"),
        (math.nan, "float nan"),
        (math.inf, "float inf"),
        ("3", "str '3'"),
        (None, "NoneType"),
        ([1], "list"),
        (np.array([1, 2]), "ndarray"),
    ],
)
def test_a_step_that_is_no_integer_is_refused(value, described):
    with pytest.raises(
        EventValueError, match=f"step must be an integer, got {described}"
    ):
        TextEvent.unpublished("s", "n", value, "t")


@pytest.mark.parametrize(
    "value", [2**63, -(2**63) - 1, 1 << 20_000], ids=["above", "below", "far"]
)
def test_a_step_that_no_file_could_hold_is_refused(value):
    with pytest.raises(EventValueError, match=r"step has \d+ bits, more than"):
        TextEvent.unpublished("s", "n", value, "t")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (0.1, 0.1),
        (np.float32(0.5), 0.5),
        ([0.1, 1], [0.1, 1.0]),
        (np.array([0.1, 0.2]), [0.1, 0.2]),
        ({"body": 1, "head": 0.5}, {"body": 1.0, "head": 0.5}),
    ],
)
def test_a_learning_rate_is_one_or_one_for_each_group(value, expected):
    found = LearningRateEvent.unpublished("m", "s", 1, value).base_lr

    assert found == expected
    assert type(found).__module__ in ("builtins", "drytrack.core._frozen")


@pytest.mark.parametrize("value", ["0.1", b"ab", [None], np.zeros((2, 2)), 1j])
def test_a_learning_rate_that_is_no_number_is_refused(value):
    with pytest.raises(EventValueError, match="base_lr must be a number"):
        LearningRateEvent.unpublished("m", "s", 1, value)


def test_texts_become_something_that_files_can_hold():
    event = TextEvent.unpublished("s", "n", 1, "a\ud800b é\n🔥")

    assert event.text == "a\\ud800b é\n🔥"
    assert TextEvent.unpublished("s", "n", 1, 7).text == "7"


def test_a_configuration_becomes_plain_data_with_secrets_masked():
    config = {
        "lr": np.float32(0.5),
        "token": "abcdef",
        "deep": {"lock": threading.Lock()},
    }
    config["self"] = config

    event = StartExperimentEvent.unpublished(config, "e", None, "r")

    assert event.config["lr"] == 0.5
    assert "abcdef" not in str(event.config)
    with pytest.raises(TypeError, match="belongs to an event"):
        event.config["lr"] = 1
    with pytest.raises(TypeError, match="belongs to an event"):
        event.config["deep"]["lock"] = 1


@pytest.mark.parametrize("value", [None, 3, [1], "text"])
def test_parameters_must_have_names(value):
    with pytest.raises(EventValueError, match="params must be a mapping"):
        ParamsEvent.unpublished(value)


def test_a_context_holds_labels():
    event = StepMetricEvent.unpublished("s", 1, {"l": 1}, {"split": "val", "fold": 2})

    assert event.context == {"split": "val", "fold": 2}
    assert StepMetricEvent.unpublished("s", 1, {"l": 1}, None).context == {}
    assert StepMetricEvent.unpublished("s", 1, {"l": 1}, {}).context == {}
    odd = StepMetricEvent.unpublished("s", 1, {"l": 1}, {"a": "\ud800", "b": 2**70})
    for value in odd.context.values():
        str(value).encode()
    with pytest.raises(EventValueError, match="context must be a mapping"):
        StepMetricEvent.unpublished("s", 1, {"l": 1}, np.array([1, 2]))
    with pytest.raises(InvalidNameError, match="context key"):
        StepMetricEvent.unpublished("s", 1, {"l": 1}, {"a\nb": "c"})


def test_tags_are_copied_and_one_tag_is_a_list():
    tags = ["a", "b"]

    event = StartExperimentEvent.unpublished({}, "e", None, "r", tags=tags)
    tags.append("c")

    assert event.tags == ["a", "b"]
    assert StartExperimentEvent.unpublished({}, "e", None, "r", tags="one").tags == [
        "one"
    ]
    with pytest.raises(EventValueError, match="tags must be a list of names, got int"):
        StartExperimentEvent.unpublished({}, "e", None, "r", tags=3)


def test_the_rows_of_a_table_stay_numbers_and_text():
    rows = [[1, "a"], (np.float64(0.5), {"k": [1]})]

    event = TableEvent.unpublished("s", "t", 1, ["x", "y"], rows)

    assert event.rows == [[1, "a"], [0.5, {"k": [1]}]]
    with pytest.raises(TypeError, match="belongs to an event"):
        event.rows[1][1]["k"].append(2)


@pytest.mark.parametrize("rows", ["ab", 3, {"a": 1}, ["ab"], [3], [{"x": 1, "y": 2}]])
def test_rows_that_are_no_rows_are_refused(rows):
    with pytest.raises(
        EventValueError, match=r"rows must be a list of rows, got .*\. Pass"
    ):
        TableEvent.unpublished("s", "t", 1, ["x", "y"], rows)


def test_a_row_of_another_length_than_the_header_is_refused():
    with pytest.raises(
        EventValueError, match="row 1 of table 't' has 1 cells for 2 columns"
    ):
        TableEvent.unpublished("s", "t", 1, ["x", "y"], [[1, 2], [3]])


@pytest.mark.parametrize(
    ("counts", "edges", "said"),
    [
        ([1, 2], [0, 1], "has 2 counts and 2 bin edges"),
        ([1], [1, 0], "ascending"),
        ([], [0], "has 0 counts"),
        ([math.nan], [0, 1], "counts holds NaN"),
        ([1], [0, math.inf], "bin_edges holds NaN or infinity"),
        (["1"], [0, 1], "each of counts must be a number, got str"),
        (np.zeros((1, 2)), [0, 1], "each of counts must be a number, got list"),
        (3, [0, 1], "counts must be a list of numbers"),
        ("12", [0, 1], "counts must be a list of numbers"),
    ],
)
def test_a_histogram_that_is_none_is_refused(counts, edges, said):
    with pytest.raises(EventValueError, match=said):
        HistogramEvent.unpublished("s", "h", 1, counts, edges)


def test_a_histogram_takes_what_numpy_makes():
    event = HistogramEvent.unpublished("s", "h", 1, *np.histogram([1, 2, 3], bins=2))

    assert event.counts == [1.0, 2.0]
    assert event.bin_edges == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("kind", [SaveModelEvent, LoadModelEvent])
def test_a_location_stays_as_it_was_given(kind):
    for location in ("s3://bucket/a.pt", pathlib.Path("a.pt")):
        assert kind.unpublished("m", "checkpoint", location, 3).location == location
    assert kind.unpublished("m", "checkpoint", "a.pt", None).epoch is None
    with pytest.raises(EventValueError, match="location must be a path, got int"):
        kind.unpublished("m", "checkpoint", 3, 3)


def test_an_artifact_has_a_path():
    event = ArtifactEvent.unpublished(
        "a", "x/y.txt", "dataset", artifact_path=pathlib.PurePosixPath("in")
    )

    assert event.path == pathlib.Path("x/y.txt")
    assert event.artifact_path == "in"
    with pytest.raises(EventValueError, match="NUL"):
        ArtifactEvent.unpublished("a", "x\0y", "dataset")
