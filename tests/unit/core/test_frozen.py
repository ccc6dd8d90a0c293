from __future__ import annotations

import copy
import json
import pickle

import orjson
import pytest

from drytrack.core._frozen import FrozenDict, FrozenList, freeze

CHANGES_OF_A_DICT = [
    lambda d: d.__setitem__("a", 2),
    lambda d: d.__delitem__("a"),
    lambda d: d.clear(),
    lambda d: d.pop("a"),
    lambda d: d.popitem(),
    lambda d: d.setdefault("b", 1),
    lambda d: d.update(b=1),
    lambda d: d.__ior__({"b": 1}),
]
CHANGES_OF_A_LIST = [
    lambda x: x.__setitem__(0, 2),
    lambda x: x.__delitem__(0),
    lambda x: x.__iadd__([1]),
    lambda x: x.__imul__(2),
    lambda x: x.append(1),
    lambda x: x.extend([1]),
    lambda x: x.insert(0, 1),
    lambda x: x.remove(3),
    lambda x: x.pop(),
    lambda x: x.clear(),
    lambda x: x.sort(),
    lambda x: x.reverse(),
]


@pytest.mark.parametrize("change", CHANGES_OF_A_DICT)
def test_a_frozen_dict_refuses_every_change(change):
    frozen = FrozenDict({"a": 1})

    with pytest.raises(TypeError, match=r"cannot be changed\. Change a copy: dict"):
        change(frozen)

    assert frozen == {"a": 1}


@pytest.mark.parametrize("change", CHANGES_OF_A_LIST)
def test_a_frozen_list_refuses_every_change(change):
    frozen = FrozenList([3, 1])

    with pytest.raises(TypeError, match=r"cannot be changed\. Change a copy: list"):
        change(frozen)

    assert frozen == [3, 1]


def test_no_method_that_changes_a_built_in_is_forgotten():
    reading = {
        dict: {"copy", "fromkeys", "get", "items", "keys", "values"},
        list: {"copy", "count", "index"},
    }
    for frozen, base in ((FrozenDict, dict), (FrozenList, list)):
        public = {name for name in vars(base) if not name.startswith("_")}
        changing = public - reading[base]
        assert changing <= set(vars(frozen))


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda value: pickle.loads(pickle.dumps(value)),
        lambda value: json.loads(json.dumps(value)),
        lambda value: orjson.loads(orjson.dumps(value)),
        freeze,
    ],
)
def test_frozen_data_is_copied_and_serialised_like_what_it_is_made_of(copied):
    frozen = freeze({"a": [1, {"b": (2.5, None)}], "c": {}})

    assert copied(frozen) == {"a": [1, {"b": [2.5, None]}], "c": {}}


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies_are_as_frozen_as_the_original(duplicate):
    again = duplicate(freeze({"a": [1]}))

    assert type(again) is FrozenDict
    assert type(again["a"]) is FrozenList


def test_a_union_is_an_ordinary_dict():
    merged = FrozenDict({"a": 1}) | {"b": 2}
    merged["c"] = 3

    assert merged == {"a": 1, "b": 2, "c": 3}
