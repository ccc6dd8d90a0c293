"""Names as a backend takes them, and back."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from drytrack.trackers.base import NameRule

NARROW = r"[A-Za-z0-9_./ -]"
names = st.text(min_size=1) | st.text("_x2f%/a", min_size=1)


@given(names)
@example("_x0:")
def test_a_name_comes_back_in_another_process(name):
    adapted = NameRule(NARROW, refused=r"^/|//|\.\.").adapt(name)

    assert NameRule(NARROW).restore(adapted) == name
    assert re.fullmatch(f"{NARROW}*", adapted)
    assert not re.search(r"^/|//|\.\.", adapted)


@given(names, names)
def test_two_names_are_never_written_alike(one, other):
    rule = NameRule(r"[a-z0-9_]")

    assert (rule.adapt(one) == rule.adapt(other)) == (one == other)


@given(st.text(min_size=1))
def test_a_long_name_is_cut_and_comes_back_where_it_was_cut(name):
    rule = NameRule(NARROW, max_length=20)

    adapted = rule.adapt(name)

    assert len(adapted) <= 20
    assert rule.restore(adapted) == name


def test_long_names_that_begin_alike_stay_apart():
    rule = NameRule(max_length=30)

    assert rule.adapt("a" * 100) != rule.adapt("a" * 101)


def test_a_rule_has_marks_of_its_own():
    rule = NameRule(r"[a-z0-9%;]", start="%", end=";")

    assert rule.adapt("a/b%2f;") == "a%2f;b%25;2f;"
    assert rule.restore("a%2f;b%25;2f;") == "a/b%2f;"


def test_most_names_stay_as_they_are():
    assert NameRule(NARROW).adapt("train/loss_1") == "train/loss_1"


@given(st.text("_xf0/", min_size=1))
def test_names_that_no_rule_has_written_can_be_restored_too(name):
    assert isinstance(NameRule(NARROW).restore(name), str)
