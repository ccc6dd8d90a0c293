from __future__ import annotations

import enum
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drytrack.core import _names
from drytrack.core._names import (
    check_folder_name,
    check_name,
    decode_file_name,
    encode_file_name,
)
from drytrack.core.exceptions import EventValueError, InvalidNameError

GOOD = [
    "loss",
    "train/loss",
    "a\\b",
    "..",
    ".",
    "../../etc/passwd",
    "C:loss",
    "con",
    "nul.txt",
    " padded ",
    "dot.",
    "-rf",
    "🔥 loss",
    "损失",
    "e\u0301",
    "é",
    "100%",
    "%2F",
    "a*b?c",
    "x" * 300,
    "损" * 300,
]
BAD = [
    "",
    "a\nb",
    "a\rb",
    "a\tb",
    "\0",
    "x\x7f",
    "x\x85",
    "a\u2028b",
    "\ud800",
    "x" * 1001,
]


@pytest.mark.parametrize("name", GOOD)
def test_a_name_may_hold_anything_but_control_characters(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_nothing_could_give_back_is_refused(name):
    with pytest.raises(InvalidNameError, match=r"^model_name .*\. [A-Z]"):
        check_name(name, "model_name")


@pytest.mark.parametrize("name", [None, 3, b"loss", ["loss"], 1.5])
def test_a_name_that_is_no_text_is_refused_with_its_type(name):
    with pytest.raises(
        EventValueError, match=f"must be text, got {type(name).__name__}"
    ):
        check_name(name)


def test_an_object_whose_repr_raises_is_refused_all_the_same():
    class Silent:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(InvalidNameError, match="Silent"):
        check_name(Silent())


def test_an_enum_member_stands_for_its_value():
    class Split(str, enum.Enum):  # noqa: UP042  # the older form is what is tested
        TRAIN = "train"

    name = check_name(Split.TRAIN)

    assert (type(name), name) == (str, "train")


def test_names_seen_are_forgotten_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(_names, "_MAX_KNOWN", len(_names.known_names) + 10)

    for number in range(50):
        check_name(f"many {number}")

    assert len(_names.known_names) <= _names._MAX_KNOWN


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "/absolute",
        "C:\\x",
        "a/b",
        "a\\b",
        "",
        ".",
        "..",
        "x.",
        " x",
        "x ",
        "con",
        "NUL.txt",
        "Com1",
        "lpt9.log",
        "aux",
        "prn",
        "CONIN$",
        "COM¹",
        "a:b",
        "a*",
        'a"b',
        "a|b",
        "a\nb",
        "a\0b",
        "é" * 128,
        "x" * 256,
        None,
        3,
    ],
)
def test_a_name_that_cannot_be_a_folder_everywhere_is_refused(name):
    with pytest.raises(InvalidNameError, match=r"^run id "):
        check_folder_name(name, "run id")


@pytest.mark.parametrize(
    "name",
    [
        "Digits",
        "2026-11-20_23-12-01_2",
        ".hidden",
        "é" * 127,
        "🔥",
        "console",
        "x" * 255,
    ],
)
def test_a_name_that_can_be_a_folder_is_kept(name, tmp_path):
    folder = tmp_path / check_folder_name(name, "run id")
    folder.mkdir()

    assert [path.name for path in tmp_path.iterdir()] == [name]


checked = st.text(
    st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1
)


@given(name=checked, suffix=st.sampled_from(["", ".csv", ".json"]))
def test_an_encoded_name_is_one_file_and_comes_back(name, suffix):
    encoded = encode_file_name(name, suffix)

    assert encoded.isascii()
    assert len(encoded) <= 255
    assert not set(encoded) & set('/\\:*?"<>|\0')
    assert encoded not in (".", "..")
    assert check_folder_name(encoded, "file") == encoded
    if "%~" not in encoded:
        assert decode_file_name(encoded, suffix) == name


@pytest.mark.parametrize("name", GOOD)
def test_odd_names_become_files_of_the_folder_they_are_put_in(name, tmp_path):
    path = tmp_path / encode_file_name(name, ".csv")
    path.touch()

    assert [child.name for child in tmp_path.iterdir()] == [path.name]


def test_different_names_become_different_files():
    names = [
        *GOOD,
        "损" * 299 + "x",
        "y" * 300,
        "x" * 299,
        "con.csv",
        "%63on",
        "a b",
        "a%20b",
    ]

    encoded = {encode_file_name(name, ".csv") for name in names}

    assert len(encoded) == len(names)


def test_names_are_checked_from_many_threads_at_once(monkeypatch):
    monkeypatch.setattr(_names, "_MAX_KNOWN", 20)
    errors = []

    def check() -> None:
        try:
            for number in range(500):
                assert check_name(f"n{number % 40}") == f"n{number % 40}"
        except BaseException as err:  # noqa: BLE001  # reported below
            errors.append(err)

    threads = [threading.Thread(target=check) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
