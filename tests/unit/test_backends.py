"""Trackers by name."""

from __future__ import annotations

import pytest

from drytrack import backends
from drytrack.backends import (
    find_backend,
    known_backends,
    make_backend,
    options_of,
    register_backend,
)
from drytrack.core.exceptions import (
    ConfigurationError,
    MissingDependencyError,
    UnknownBackendError,
)
from drytrack.testing import Recorder
from drytrack.trackers.csv import CSVDumper


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch):
    monkeypatch.setattr(backends, "_registered", {})


def test_our_trackers_go_by_the_names_of_their_modules():
    assert {"csv", "yaml", "tqdm", "tensorboard"} <= set(known_backends())
    assert "base" not in known_backends()
    assert find_backend("csv") is CSVDumper
    assert find_backend("sqlite") is find_backend("sqlalchemy")


@pytest.mark.parametrize("name", known_backends())
def test_each_of_our_backends_is_found(name):
    assert find_backend(name).__module__.startswith("drytrack.trackers")


def test_a_registered_class_goes_first():
    register_backend("csv", Recorder)

    assert find_backend("csv") is Recorder


def test_an_entry_point_of_another_package_is_found(install_tracker):
    code = "from drytrack.testing import Recorder\nclass Theirs(Recorder): pass\n"
    install_tracker("theirs", "their_package", code)

    assert "theirs" in known_backends()
    assert find_backend("theirs").__name__ == "Theirs"


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("", ConfigurationError, r"\('their_package:Theirs' of theirs 1.2\)"),
        ("Theirs = 3", ConfigurationError, "is no tracker class"),
        ("import no_such_package", MissingDependencyError, "no_such_package"),
    ],
)
def test_an_entry_point_that_leads_nowhere_says_whose_it_is(
    install_tracker, code, error, message
):
    install_tracker("theirs", "their_package", code)

    with pytest.raises(error, match=message):
        find_backend("theirs")


def test_an_unknown_name_tells_the_closest_and_all():
    with pytest.raises(
        UnknownBackendError, match=r"Did you mean 'csv'\? There are: .*"
    ):
        find_backend("cvs")


@pytest.mark.parametrize("name", ["", " ", "a,b", "none", 3])
def test_a_name_that_cannot_be_chosen_is_refused(name):
    with pytest.raises(ConfigurationError, match="cannot be a backend's name"):
        register_backend(name, Recorder)


@pytest.mark.parametrize("cls", [int, Recorder(), "csv"])
def test_what_is_no_tracker_class_is_refused(cls):
    with pytest.raises(ConfigurationError, match="must be a tracker class"):
        register_backend("mine", cls)


def test_options_are_those_of_the_constructor(tmp_path):
    assert options_of(CSVDumper) == (["par_dir"], False)
    assert make_backend("csv", {"par_dir": tmp_path}).par_dir == tmp_path
