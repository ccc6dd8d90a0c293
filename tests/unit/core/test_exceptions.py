from __future__ import annotations

import inspect
import pickle

import pytest

from drytrack.core import exceptions
from drytrack.core.exceptions import DrytrackError, DrytrackWarning

CLASSES = [getattr(exceptions, name) for name in exceptions.__all__]


def test_every_class_of_the_module_is_public_and_in_its_drawing():
    defined = {
        name
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and value.__module__ == exceptions.__name__
    }

    assert set(exceptions.__all__) == defined
    assert exceptions.__all__ == sorted(exceptions.__all__)
    for name in defined:
        assert name in (exceptions.__doc__ or "")


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_and_warnings_hang_on_two_trees(cls):
    root = DrytrackWarning if issubclass(cls, Warning) else DrytrackError

    assert issubclass(cls, root)
    assert cls.__doc__


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_survives_the_way_back_from_another_process(cls):
    error = pickle.loads(pickle.dumps(cls("what happened")))

    assert type(error) is cls
    assert str(error) == "what happened"


@pytest.mark.parametrize(
    ("name", "built_in"),
    [
        ("MetricValueError", ValueError),
        ("InvalidNameError", ValueError),
        ("MissingDependencyError", ImportError),
        ("RunExistsError", FileExistsError),
        ("RunNotFoundError", LookupError),
        ("StorageError", OSError),
        ("HandlerError", TypeError),
        ("EventDefinitionError", TypeError),
        ("AccessOutsideScopeError", RuntimeError),
        ("DrytrackWarning", UserWarning),
    ],
)
def test_library_errors_are_caught_as_what_a_user_would_catch(name, built_in):
    assert issubclass(getattr(exceptions, name), built_in)


def test_the_drawing_tells_the_parents():
    drawing = exceptions.__doc__ or ""
    parents: list[tuple[int, type]] = []
    for line in drawing.splitlines():
        name = line.strip(" │├└─").partition(" ")[0]
        if name not in exceptions.__all__:
            continue
        depth = line.index(name)
        cls = getattr(exceptions, name)
        while parents and parents[-1][0] >= depth:
            parents.pop()
        if parents:
            assert cls.__mro__[1] is parents[-1][1]
        parents.append((depth, cls))
