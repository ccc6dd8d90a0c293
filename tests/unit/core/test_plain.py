from __future__ import annotations

import argparse
import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import json
import math
import pathlib
import queue
import subprocess
import sys
import threading
import types
import uuid
from collections.abc import Mapping

import attrs
import numpy as np
import omegaconf
import orjson
import pandas as pd
import polars as pl
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drytrack.core._plain import describe, to_plain

LIMITS = {"max_depth": 3, "max_items": 4, "max_text": 40}


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Config:
    lr: float = 0.1
    password: str = "hunter2"
    sizes: tuple[int, ...] = (1, 2)


@attrs.define
class AttrsConfig:
    lr: float = 0.1
    api_key: str = "hunter2"


class PydanticConfig(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    lr: float = 0.1
    phrase: pydantic.SecretStr = pydantic.SecretStr("hunter2")
    raw: pydantic.SecretBytes = pydantic.SecretBytes(b"hunter2")


Point = collections.namedtuple("Point", ["x", "y"])


class Trainer:
    def __init__(self):
        self.lr = 0.1
        self.sizes = [1, 2]
        self.token = "hunter2"
        self.on_end = lambda: None
        self._cache = object()


class Slotted:
    __slots__ = ("_hidden", "lr", "unset")

    def __init__(self):
        self.lr = 0.1
        self._hidden = 1


def train(): ...


class ReadOnlyMapping(Mapping):
    def __init__(self, broken=()):
        self.broken = broken

    def __getitem__(self, key):
        if key in self.broken:
            raise KeyError(key)
        return 1

    def __iter__(self):
        return iter(["a", "b"])

    def __len__(self):
        return 2


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (3, 3),
        ("text", "text"),
        ((1, [2, (3,)]), [1, [2, [3]]]),
        ({"b", "a"}, ["a", "b"]),
        (frozenset({3, 1, 2}), [1, 2, 3]),
        (collections.deque([1, 2]), [1, 2]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.ChainMap({"a": 1}), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        ({"a": 1}.keys(), ["a"]),
        (ReadOnlyMapping(), {"a": 1, "b": 1}),
        (ReadOnlyMapping(broken="b"), {"a": 1, "b": "<unreadable: KeyError>"}),
        (array.array("i", [1, 2]), [1, 2]),
        (range(3), "range(0, 3)"),
        (Config(), {"lr": 0.1, "password": "***", "sizes": [1, 2]}),
        (AttrsConfig(), {"lr": 0.1, "api_key": "***"}),
        (Point(1, 2), {"x": 1, "y": 2}),
        (argparse.Namespace(lr=1, token="t"), {"lr": 1, "token": "***"}),
        (types.SimpleNamespace(lr=1), {"lr": 1}),
        (Colour.RED, "Colour.RED"),
        (Level.HIGH, "Level.HIGH"),
        (Access.READ | Access.WRITE, "Access.READ|WRITE"),
        (Access(0), "Access(0)"),
        (pathlib.PurePosixPath("a/b"), "a/b"),
        (pathlib.PureWindowsPath("a\\b"), "a/b"),
        (datetime.datetime(2026, 11, 20, 23, 12), "2026-11-20T23:12:00"),
        (datetime.date(2026, 11, 20), "2026-11-20"),
        (datetime.time(23, 12), "23:12:00"),
        (datetime.timedelta(hours=2), "2:00:00"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.10"), "1.10"),
        (fractions.Fraction(1, 3), "1/3"),
        (1 + 2j, "(1+2j)"),
        (b"abc", "<bytes of length 3>"),
        (math.sqrt, "math.sqrt"),
        (int, "int"),
        (list[int], "list[int]"),
        (train, f"{__name__}.train"),
        (Trainer, f"{__name__}.Trainer"),
        (functools.lru_cache(train), f"{__name__}.train"),
        ([].append, "list.append"),
        (
            functools.partial(math.pow, 2, y=3),
            {"class": "partial", "func": "math.pow", "args": [2], "keywords": {"y": 3}},
        ),
        (json, "<module json>"),
        (ValueError("no"), "ValueError: no"),
        (io.BytesIO(b"abc"), "<BytesIO>"),
        (threading.Lock(), "<unlocked _thread.lock object>"),
        (object(), "<object>"),
        (Slotted(), {"class": "Slotted", "lr": 0.1}),
        (Trainer(), {"class": "Trainer", "lr": 0.1, "sizes": [1, 2], "token": "***"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_standard_object_becomes_readable_data(value, plain):
    assert to_plain(value) == plain


def test_a_lambda_is_named_by_its_module():
    assert to_plain(lambda: None).endswith("<lambda>")
    assert to_plain(lambda: None).startswith(__name__)


def numbers():
    yield from range(3)


def test_a_generator_is_described_and_not_consumed():
    items = numbers()

    plain = to_plain({"data": items})

    assert plain == {"data": "<generator numbers>"}
    assert list(items) == [0, 1, 2]


def test_a_queue_a_thread_and_an_open_file_are_described(tmp_path):
    values = [queue.Queue(), threading.Thread(target=train), threading.RLock()]
    path = tmp_path / "log.txt"

    with path.open("w") as file:
        plain = to_plain([*values, file])

    assert plain[0]["class"] == "Queue"
    assert "0x" not in json.dumps(plain)
    assert plain[-1] == f"<TextIOWrapper {path}>"


def test_subclasses_of_builtins_become_exact_builtins():
    class Text(str):
        __slots__ = ()

        def __str__(self):
            return "lie"

    class Count(int):
        def __index__(self):
            return 7

    class Share(float):
        def __float__(self):
            return 7.0

    plain = to_plain([Text("true"), Count(1), Share(-0.0), np.float64(2), np.str_("a")])

    assert plain == ["true", 1, -0.0, 2.0, "a"]
    assert math.copysign(1, plain[2]) == -1
    assert [type(item) for item in plain] == [str, int, float, float, str]


def test_nan_and_infinite_floats_stay_floats():
    plain = to_plain([math.nan, math.inf, np.float32("-inf"), float("nan")])

    assert math.isnan(plain[0])
    assert plain[1:3] == [math.inf, -math.inf]
    assert math.isnan(plain[3])


def test_integers_beyond_64_bits_become_text():
    assert to_plain([2**64 - 1, -(2**63)]) == [2**64 - 1, -(2**63)]
    assert to_plain([2**64, -(2**63) - 1]) == [str(2**64), str(-(2**63) - 1)]
    assert to_plain(10**100_000) == "<int of 332193 bits>"


def test_lone_surrogates_are_replaced_and_pairs_are_joined():
    assert to_plain({"a\ud800": "b\udc00c", "x": "\ud83d\ude00é"}) == {
        "a\ufffd": "b\ufffdc",
        "x": "😀é",
    }


def test_keys_that_are_equal_as_text_do_not_overwrite_each_other():
    plain = to_plain({1: "a", "1": "b", 1.5: "c", None: "d", (1, 2): "e", "None": "f"})

    assert plain == {
        "1": "a",
        "1 (str)": "b",
        "1.5": "c",
        "None": "d",
        "[1, 2]": "e",
        "None (str)": "f",
    }


def test_numbers_and_flags_under_a_secret_name_are_settings():
    config = {"token": 5, "auth": True, "secret": None, "password": "", "cookie": {}}

    assert to_plain(config) == config


def test_everything_else_under_a_secret_name_is_masked():
    config = {"password": "pw", "credentials": {"user": "u"}, "secrets": ["s"]}

    plain = to_plain({**config, "auth": ("u", "p"), "token": b"abc", "key": "kept"})

    assert plain == {**dict.fromkeys([*config, "auth", "token"], "***"), "key": "kept"}


def test_a_credential_inside_a_text_or_a_key_is_masked():
    plain = to_plain({"postgresql://u:pw@db": ["https://u:pw@db", "--token=abcd"]})

    assert plain == {"postgresql://***@db": ["https://***@db", "--token=***"]}


def test_a_credential_across_the_cut_of_a_text_is_masked():
    text = "x" * 80 + " postgresql://ada:hunter2hunter2@db"

    for max_text in range(90, 120):
        assert "hunt" not in to_plain(text, max_text=max_text)


def test_a_cycle_ends_with_the_path_that_it_leads_to():
    config = {"model": {"name": "mlp"}, "all": []}
    config["model"]["self"] = config["model"]
    config["all"].append(config)

    assert to_plain(config) == {
        "model": {"name": "mlp", "self": "<cycle to 'model'>"},
        "all": ["<cycle to ''>"],
    }


def test_an_object_that_is_shared_is_no_cycle():
    shared = {"lr": 1}

    assert to_plain([shared, shared]) == [shared, shared]


def test_depth_items_and_text_are_limited():
    value = {"deep": [[[1]]], "long": list(range(100)), "text": "x" * 100}

    plain = to_plain(value, **LIMITS)

    assert plain == {
        "deep": [["<list of 1 items>"]],
        "long": [0, 1, 2, "<97 more items>"],
        "text": "x" * 20 + "... (100 characters)",
    }
    assert list(to_plain(dict.fromkeys(range(9), 0), **LIMITS)) == [
        "0",
        "1",
        "2",
        "...",
    ]


def test_an_endless_mapping_is_cut():
    class Endless(ReadOnlyMapping):
        def __iter__(self):
            return iter(int, 1)

        def __len__(self):
            raise OverflowError

    plain = to_plain(Endless(), max_items=3)

    assert plain == {"0": 1, "0 (int)": 1, "...": "<more items>"}


def test_the_total_size_is_limited_whatever_nests():
    wide = [1] * 1000
    for _ in range(8):
        wide = [wide] * 1000
    texts = ["x" * 9_000] * 1000

    assert len(json.dumps(to_plain(wide))) < 1_000_000
    assert len(json.dumps(to_plain([texts] * 1000))) < 3_000_000
    assert "<truncated>" in json.dumps(to_plain(wide))


# NumPy, pandas, polars


def test_small_arrays_are_listed_and_large_ones_are_described():
    small = np.arange(6, dtype=np.float32).reshape(2, 3)
    large = np.zeros((2, 100), dtype=np.int16)

    assert to_plain(small) == [[0, 1, 2], [3, 4, 5]]
    assert to_plain(large) == "ndarray(shape=(2, 100), dtype=int16)"
    assert to_plain(np.array(2.5)) == 2.5
    assert to_plain(np.array([])) == []
    assert to_plain(np.array(["2026-11-20"], "M8[ns]"))[0].startswith("2026-11-20T")
    assert to_plain(np.array([{"token": "x"}, None])) == [{"token": "***"}, None]


@pytest.mark.parametrize(
    ("scalar", "plain"),
    [
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.complex64(1j), "1j"),
        (np.clongdouble(1j), "1j"),
        (np.datetime64("2026-11-20"), "2026-11-20"),
        (np.bytes_(b"abc"), "<bytes_ of length 3>"),
    ],
)
def test_numpy_scalars_become_python_values(scalar, plain):
    result = to_plain(scalar)

    assert result == plain
    assert type(result) is type(plain)


def test_a_huge_array_is_not_read():
    # Reading any of it would fail: the memory behind it does not exist.
    class Guarded(np.ndarray):
        def tolist(self):
            raise AssertionError

    huge = np.broadcast_to(np.float64(1), (10**6, 10**6)).view(Guarded)

    assert to_plain(huge) == "Guarded(shape=(1000000, 1000000), dtype=float64)"


def test_frames_and_series_are_described():
    pandas_frame = pd.DataFrame({"token": [1, 2], "b": [0.5, 1.5]})
    polars_frame = pl.DataFrame({"token": [1, 2], "b": [0.5, 1.5]})
    names = {"class": "DataFrame", "shape": [2, 2], "columns": ["token", "b"]}

    assert to_plain(pandas_frame) == {**names, "dtypes": ["int64", "float64"]}
    assert to_plain(polars_frame) == {**names, "dtypes": ["Int64", "Float64"]}
    series = {"class": "Series", "shape": [2], "name": "b"}
    assert to_plain(pandas_frame["b"]) == {**series, "dtype": "float64"}
    assert to_plain(polars_frame["b"]) == {**series, "dtype": "Float64"}
    assert to_plain(polars_frame.lazy()) == "<LazyFrame>"
    assert to_plain(pd.Timestamp("2026-11-20")) == "2026-11-20T00:00:00"
    assert to_plain([pd.NaT, pd.NA]) == ["NaT", "<NA>"]


# Configuration libraries


def test_a_pydantic_model_gives_its_fields_and_hides_its_secrets():
    plain = to_plain(PydanticConfig(extra={"db_password": "hunter2"}))

    assert plain == {
        "lr": 0.1,
        "phrase": "***",
        "raw": "***",
        "extra": {"db_password": "***"},
    }


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="pydantic.v1 ends at 3.13")
def test_a_pydantic_v1_model_gives_its_fields_and_hides_its_secrets():
    from pydantic import v1

    class Old(v1.BaseModel):
        lr: float = 0.1
        phrase: v1.SecretStr = v1.SecretStr("hunter2")

    assert to_plain(Old()) == {"lr": 0.1, "phrase": "***"}


def test_omegaconf_is_resolved_where_it_can_be():
    config = omegaconf.OmegaConf.create(
        {
            "lr": 0.1,
            "copy": "${lr}",
            "sizes": [1, "${lr}"],
            "missing": "???",
            "broken": "${nowhere}",
            "nested": {"up": "${sizes}"},
            "nothing": None,
        }
    )

    assert to_plain(config) == {
        "lr": 0.1,
        "copy": 0.1,
        "sizes": [1, 0.1],
        "missing": "???",
        "broken": "${nowhere}",
        "nested": {"up": [1, 0.1]},
        "nothing": None,
    }


@pytest.mark.parametrize(
    ("content", "plain"),
    [(None, None), ("???", "???"), ("${a}", "${a}"), ({}, {})],
)
def test_an_omegaconf_without_content_is_told_as_it_is(content, plain):
    assert to_plain(omegaconf.DictConfig(content)) == plain


def test_a_secret_that_omegaconf_interpolates_under_another_name_is_masked(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "hunter2")
    config = omegaconf.OmegaConf.create(
        {
            "tracker": {"key": "${oc.env:SOME_API_KEY}"},
            "db": {"password": "hunter2"},
            "login": ["${db.password}", "ada:${db.password}"],
        }
    )

    assert to_plain(config) == {
        "tracker": {"key": "***"},
        "db": {"password": "***"},
        "login": ["***", "***"],
    }


def test_a_structured_omegaconf_gives_its_fields():
    @dataclasses.dataclass
    class Schema:
        colour: Colour = Colour.RED
        lr: float = omegaconf.MISSING

    config = omegaconf.OmegaConf.structured(Schema)

    assert to_plain(config) == {"colour": "Colour.RED", "lr": "???"}


# Objects that fight back


def boom(*_args, **_kwargs):
    raise RuntimeError("boom")


class WeirdError(BaseException):
    def __str__(self):
        raise RuntimeError


def weird(*_args, **_kwargs):
    raise WeirdError


class Raising:
    __repr__ = __str__ = __iter__ = __len__ = __eq__ = __hash__ = __bool__ = boom
    __getattr__ = __getattribute__ = __getitem__ = __format__ = __call__ = boom
    __class__ = property(boom)
    __dict__ = property(boom)


class RaisingMeta(type):
    __eq__ = __hash__ = __getattribute__ = __subclasscheck__ = __instancecheck__ = boom


class RaisingClass(metaclass=RaisingMeta):
    pass


class WeirdRepr:
    __repr__ = weird


class NoText:
    def __repr__(self):
        return 5


class EndlessRepr:
    def __repr__(self):
        return repr(self)


class Liar:
    __class__ = dict
    lr = 1


class RaisingDict(dict):
    items = keys = values = __iter__ = __len__ = __getitem__ = get = boom


class RaisingList(list):
    __iter__ = __len__ = __getitem__ = boom


class RaisingText(str):
    __slots__ = ()
    __str__ = __len__ = __getitem__ = __iter__ = isascii = encode = boom


class RaisingMapping(ReadOnlyMapping):
    __iter__ = __len__ = boom


class RaisingArray:
    shape = property(boom)
    dtype = property(boom)


class Bottomless:
    @property
    def __dict__(self):
        return {"next": Bottomless(), "also": Bottomless()}


@dataclasses.dataclass
class HalfMade:
    lr: float
    rest: int = dataclasses.field(init=False)


HOSTILE = {
    "raising": (Raising(), "<Raising, unreadable: RuntimeError>"),
    "raising class": (RaisingClass(), None),
    "class of it": (RaisingClass, None),
    "weird repr": (WeirdRepr(), "<WeirdRepr, unreadable: WeirdError>"),
    "no text": (NoText(), "<NoText, unreadable: TypeError>"),
    "endless repr": (EndlessRepr(), "<EndlessRepr, unreadable: RecursionError>"),
    "liar": (Liar(), "<Liar>"),
    "raising dict": (RaisingDict(lr=1), {"lr": 1}),
    "raising list": (RaisingList([1]), [1]),
    "raising text": (RaisingText("a"), "a"),
    "raising mapping": (RaisingMapping(), "<unreadable: RuntimeError>"),
    "raising array": (RaisingArray(), "<unreadable: RuntimeError>"),
    "bottomless": (Bottomless(), None),
    "half made": (HalfMade(1), {"lr": 1, "rest": "<unreadable: AttributeError>"}),
    "error": (WeirdError(), "<unreadable: RuntimeError>"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_object_that_fights_back_costs_only_itself(name):
    value, expected = HOSTILE[name]

    before, plain, after = to_plain(["before", value, "after"])

    assert (before, after) == ("before", "after")
    json.dumps(plain)
    assert expected is None or plain == expected
    json.dumps(describe(value))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_passes_through(error):
    class Interrupted:
        def __repr__(self):
            raise error

    with pytest.raises(error):
        to_plain([Interrupted()])


def test_a_value_nested_beyond_the_stack_is_cut():
    nested = []
    for _ in range(100_000):
        nested = [nested]

    assert to_plain(nested, max_depth=2) == [["<list of 1 items>"]]


def test_a_caller_without_stack_gets_an_answer():
    answers = []

    def descend():
        try:
            descend()
        except RecursionError:
            answers.append(to_plain([[[{"a": Trainer()}]]]))
            raise

    with pytest.raises(RecursionError):
        descend()

    assert answers
    assert answers[-1][0][0][0]["a"]["class"] == "Trainer"


# Any data


def as_mapping(pairs):
    made = {}
    for key, value in pairs:
        try:
            made[key] = value
        except TypeError:  # Config has no hash.
            made[str(key)] = value
    return made


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=50)
    | st.binary(max_size=5)
    | st.dates()
    | st.sampled_from(["token=x", "://", "@", "password", "...", 2**70, Colour.RED])
    | st.sampled_from([Trainer(), Config(), object(), np.float32(1), train])
)
KEYS = st.sampled_from(["password", "token", "...", "1", 1, True, None]) | SCALARS
DATA = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=8)
        | st.lists(inner, max_size=3).map(tuple)
        | st.lists(st.tuples(KEYS, inner), max_size=8).map(as_mapping)
        | st.frozensets(st.integers() | st.text(max_size=3), max_size=5)
    ),
    max_leaves=25,
)


@given(DATA, st.sampled_from([{}, LIMITS]))
def test_any_data_becomes_json_and_converting_it_again_changes_nothing(value, limits):
    plain = to_plain(value, **limits)

    text = json.dumps(plain, ensure_ascii=False, allow_nan=True)
    text.encode("utf-8")
    orjson.dumps(plain)
    assert json.dumps(to_plain(plain, **limits), ensure_ascii=False) == text


# Descriptions


def test_a_trainer_is_described_by_its_class_and_its_settings():
    assert describe(Trainer()) == {
        "class": "Trainer",
        "lr": 0.1,
        "sizes": [1, 2],
        "token": "***",
    }
    assert describe(Config(sizes=())) == {
        "class": "Config",
        "lr": 0.1,
        "password": "***",
        "sizes": [],
    }


def test_an_object_without_settings_is_described_by_its_value():
    assert describe(train) == {"class": "function", "value": f"{__name__}.train"}
    assert describe(3) == {"class": "int", "value": 3}
    assert describe(object()) == {"class": "object", "value": "<object>"}


def test_objects_inside_an_object_are_opened_a_few_times():
    outer = Slotted()
    inner = outer
    for _ in range(5):
        inner.lr = Slotted()
        inner = inner.lr

    plain = describe(outer)

    assert plain["lr"]["lr"] == {"class": "Slotted", "lr": "<Slotted>"}


# torch


@pytest.mark.torch
def test_torch_values_are_told_without_their_data():
    import torch

    layer = torch.nn.Linear(2, 3)

    plain = to_plain(
        {
            "small": torch.tensor([1.5, 2.5], requires_grad=True),
            "scalar": torch.tensor(2),
            "large": torch.zeros(20, 30, dtype=torch.float16),
            "elsewhere": torch.zeros(2, device="meta"),
            "sparse": torch.eye(2).to_sparse(),
            "weight": layer.weight,
            "dtype": torch.bfloat16,
            "device": torch.device("cuda:1"),
            "size": torch.Size([1, 2]),
            "layer": layer,
        }
    )

    assert plain == {
        "small": [1.5, 2.5],
        "scalar": 2,
        "large": "Tensor(shape=(20, 30), dtype=torch.float16, device=cpu)",
        "elsewhere": "Tensor(shape=(2,), dtype=torch.float32, device=meta)",
        "sparse": "Tensor(shape=(2, 2), dtype=torch.float32, device=cpu)",
        "weight": "Parameter(shape=(3, 2), dtype=torch.float32, device=cpu)",
        "dtype": "torch.bfloat16",
        "device": "cuda:1",
        "size": [1, 2],
        "layer": "Linear(in_features=2, out_features=3, bias=True)",
    }


@pytest.mark.torch
def test_a_torch_module_and_an_optimizer_are_described_by_their_settings():
    import torch

    layer = torch.nn.Linear(2, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)

    assert describe(layer) == {
        "class": "Linear",
        "training": True,
        "in_features": 2,
        "out_features": 3,
    }
    assert describe(optimizer)["class"] == "SGD"
    assert describe(optimizer)["defaults"]["lr"] == 0.1


def test_it_loads_nothing_but_the_standard_library():
    program = """
import sys
before = {name.partition(".")[0] for name in sys.modules}
from drytrack.core._plain import to_plain
to_plain({"a": [1, object()], "path": sys})
after = {name.partition(".")[0] for name in sys.modules} - before - {"drytrack"}
print(sorted(after - sys.stdlib_module_names - {"typing_extensions"}))
"""

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
