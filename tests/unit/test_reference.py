"""Each public tracker, event and option stands in the documents, and nothing else."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import logging
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import drytrack
import drytrack.trackers
from drytrack import Experiment, delivery
from drytrack.core import log_events
from drytrack.core.track import Tracker

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PROGRAM = re.compile(
    r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
BASES = ("Backend", "BasePlotter", "Dumper")
VARIABLE = re.compile(r"(?<!_)DRYTRACK_[A-Z_]+")  # _DRYTRACK_COMPLETE is the shell's


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def everything() -> str:
    return "".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))


def section(page: str, title: str) -> str:
    """Return what stands below a heading, up to the next one."""
    _, _, rest = page.partition(f"\n## `{title}`\n")
    return rest.partition("\n## ")[0]


def rows(page: str) -> dict[str, list[str]]:
    """Return the cells of all tables, by their first one."""
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first.strip("`"): others for first, *others in cells}


def public_trackers() -> dict[str, type[Tracker]]:
    found = {}
    for module in pkgutil.iter_modules(drytrack.trackers.__path__):
        if module.name.startswith("_"):
            continue
        loaded = importlib.import_module(f"drytrack.trackers.{module.name}")
        for name in loaded.__all__:
            public = getattr(loaded, name)
            if inspect.isclass(public) and issubclass(public, Tracker):
                found[name] = public
    return {name: found[name] for name in found if name not in BASES}


def events() -> dict[str, type[log_events.Event]]:
    named = {name: getattr(log_events, name) for name in log_events.__all__}
    return {
        name: value
        for name, value in named.items()
        if issubclass(value, log_events.Event) and value is not log_events.Event
    }


def signature(event: type[log_events.Event]) -> list[str]:
    """Return an event's fields, each with its default."""
    said = []
    for field in dataclasses.fields(event):
        default = ""
        if field.default_factory is not dataclasses.MISSING:
            default = f"={field.default_factory()!r}"
        elif isinstance(field.default, Path):
            default = "=Path()"
        elif isinstance(field.default, str):
            default = f"={json.dumps(field.default)}"
        elif field.default is not dataclasses.MISSING:
            default = f"={field.default!r}"
        said.append(f"{field.name}{default}")
    return said


def options(function: object) -> list[str]:
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.name != "self" and p.kind not in kinds]


def test_the_table_of_events_is_that_of_the_code():
    documented = rows(read("events.md"))

    assert documented.keys() == events().keys()
    for name, event in events().items():
        fields = re.findall(r"`([^`]+)`", documented[name][1])
        assert fields == signature(event), name


@pytest.mark.parametrize("name", public_trackers())
def test_every_public_tracker_is_described_with_its_options(name):
    tracker = public_trackers()[name]

    described = section(everything(), name)

    assert described
    assert [o for o in options(tracker) if f"`{o}`" not in described] == []


@pytest.mark.parametrize("name", public_trackers())
def test_a_default_that_is_written_as_code_is_that_of_the_code(name):
    parameters = inspect.signature(public_trackers()[name]).parameters
    described = {
        option: cells[0].strip("`")
        for option, cells in rows(section(read("trackers.md"), name)).items()
        if cells[0].startswith("`") and option in parameters
    }

    for option, text in described.items():
        default = parameters[option].default
        if default is not None:  # what that stands for is said in its place
            levels = logging.getLevelNamesMapping()
            assert (levels.get(text) or ast.literal_eval(text)) == default, option


def test_every_base_of_trackers_is_described():
    assert [b for b in BASES if f"`{b}`" not in read("trackers.md")] == []


@pytest.mark.parametrize("name", delivery.__all__)
def test_every_wrapper_is_described(name):
    assert f"`{name}(" in read("trackers.md")


@pytest.mark.parametrize(
    ("title", "function"),
    [("Experiment", Experiment), ("Experiment.create_run", Experiment.create_run)],
)
def test_the_options_of_a_run_are_those_of_the_code(title, function):
    documented = rows(section(read("runs.md"), title))

    assert list(documented) == options(function)


def test_the_environment_variables_are_those_of_the_code():
    used = {
        name
        for path in (ROOT / "drytrack").rglob("*.py")
        for name in VARIABLE.findall(path.read_text(encoding="utf-8"))
    }

    assert {n for n in rows(read("runs.md")) if VARIABLE.fullmatch(n)} == used


@pytest.mark.parametrize("name", drytrack.__all__)
def test_every_public_name_is_in_the_documents(name):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert re.search(rf"\b{name}\b", readme + everything())


@pytest.mark.parametrize("page", ["events.md", "runs.md", "storage.md", "trackers.md"])
def test_the_programs_of_a_page_run_and_print_what_stands_below(page, tmp_path):
    for code, shown in PROGRAM.findall(read(page)):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 0, done.stderr
        assert done.stdout == shown


def test_the_program_for_reports_writes_its_pages(tmp_path):
    for number in range(3):
        experiment = Experiment(name="Digits", par_dir=tmp_path / "experiments")
        with experiment.create_run(f"run-{number}") as run:
            run.log({"loss": number})
    ((code, _),) = PROGRAM.findall(read("reports.md"))

    command = [sys.executable, "-W", "error", "-c", code]
    subprocess.run(command, cwd=tmp_path, check=True)

    one, three = (
        (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        for name in ("report", "comparison")
    )
    assert ("run-2" in one, "run-0" in one) == (True, False)
    assert "The last three" in three
    assert all(f"run-{number}" in three for number in range(3))
