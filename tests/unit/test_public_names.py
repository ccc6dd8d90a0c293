from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import drytrack

ROOT = Path(drytrack.__path__[0])
PUBLIC_MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(ROOT)], "drytrack.")
    if not module.ispkg and "._" not in module.name
)


def run_isolated(code: str) -> str:
    """Run code in a fresh interpreter that has no site-packages of its own doing."""
    # -I and -S: no variable, no user's site and no .pth file imports anything.
    paths = [
        str(ROOT.parent),
        str(Path(importlib.import_module("typing_extensions").__file__).parent),
    ]
    head = f"import sys; sys.path[:0] = {paths!r}\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", head + code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_public_name_of_the_package_exists_and_is_listed():
    assert drytrack.__all__ == sorted(drytrack.__all__)
    assert set(drytrack._HOMES) == set(drytrack.__all__)
    for name in drytrack.__all__:
        # drytrack.replay is a module that is called like its function.
        assert getattr(drytrack, name).__name__.removeprefix("drytrack.") == name
        assert callable(getattr(drytrack, name))
    assert set(drytrack.__all__) <= set(dir(drytrack))
    assert drytrack.__version__


def test_editors_are_told_the_same_names():
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    ]
    told = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert told == drytrack._HOMES


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Expriment'"):
        _ = drytrack.Expriment


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_the_names_of_a_module_are_listed_sorted_and_its_own(name):
    module = importlib.import_module(name)
    public = list(module.__all__)
    assert len(public) == len(set(public))
    assert public == sorted(public)
    for key in public:
        assert hasattr(module, key)


@pytest.mark.parametrize("name", ["log_events", "track", "exceptions"])
def test_no_name_of_a_module_that_users_import_from_is_forgotten(name):
    module = importlib.import_module(f"drytrack.core.{name}")

    defined = {
        key
        for key, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__
    }

    assert {key for key in defined if not key.startswith("_")} == set(module.__all__)


def test_importing_drytrack_loads_the_standard_library_alone():
    code = (
        "before = set(sys.modules)\n"
        "import drytrack\n"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(loaded - sys.stdlib_module_names))\n"
    )

    loaded = ast.literal_eval(run_isolated(code))

    assert set(loaded) <= {"drytrack", "typing_extensions"}
    assert "drytrack" in loaded


def test_the_core_and_the_loops_load_the_standard_library_alone():
    code = (
        "before = set(sys.modules)\n"
        "import drytrack\n"
        "from drytrack import Experiment, TrainingLoop, Tracker\n"
        "import drytrack.delivery\n"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(loaded - sys.stdlib_module_names))\n"
    )

    loaded = ast.literal_eval(run_isolated(code))

    assert set(loaded) <= {"drytrack", "typing_extensions"}


def test_importing_drytrack_changes_nothing_that_a_user_could_notice():
    code = (
        "import logging, os, signal, threading, warnings\n"
        "def look():\n"
        "    return (dict(os.environ), threading.enumerate(), list(warnings.filters),\n"
        "        [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],\n"
        "        list(logging.root.handlers), logging.root.level, os.listdir('.'),\n"
        "        sys.excepthook, sys.stdout, sys.stderr, list(sys.path))\n"
        "before = look()\n"
        "import drytrack\n"
        "print(look() == before)\n"
    )

    assert run_isolated(code) == "True\n"
