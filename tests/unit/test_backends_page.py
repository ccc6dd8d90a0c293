"""The page about backends says what their classes do."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location(
        "make_backend_table", DOCS / "make_backend_table.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_what_the_classes_override(maker):
    page = maker.PAGE.read_text(encoding="utf-8")

    assert maker.fill(page) == page, "run: python docs/make_backend_table.py"


def test_every_module_is_looked_through(maker):
    names = {cls.__name__ for cls in maker.find_backends()}

    assert {"TensorBoard", "MLflow", "DVCLive"} <= names
