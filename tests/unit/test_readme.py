"""The README's programs run as they stand, in its order, and print what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
PROGRAM = re.compile(
    r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
TREE = re.compile(r"^```text\n(experiments/\n.*?)^```", re.MULTILINE | re.DOTALL)
METRICS = re.compile(r"(\w+=[\d.e-]+(?:, \w+=[\d.e-]+)*)\]?$", re.MULTILINE)


class Ran(NamedTuple):
    code: str
    shown: str
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def programs(folder: Path) -> list[Ran]:
    """Run each program in a process of its own, all in one folder."""
    ran = []
    clean = {k: v for k, v in os.environ.items() if not k.startswith("DRYTRACK_")}
    for code, shown in PROGRAM.findall(README.read_text(encoding="utf-8")):
        script = folder / f"program_{len(ran)}.py"
        script.write_text(code, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-W", "error", script.name],
            cwd=folder,
            env=clean,
            capture_output=True,
            text=True,
            check=False,
        )
        ran.append(Ran(code, shown, done))
    return ran


def test_every_program_runs_without_error_or_warning(programs):
    assert len(programs) > 1
    assert [ran.done.stderr for ran in programs if ran.done.returncode] == []


def test_the_first_program_reports_the_metrics_that_its_picture_shows(programs):
    first = programs[0]
    pictured = METRICS.findall(first.shown)

    assert len(pictured) == 3
    assert [text for text in pictured if text not in first.done.stderr] == []
    assert first.done.stdout == ""


def test_every_other_program_prints_what_stands_below_it(programs):
    for ran in programs[1:]:
        assert ran.done.stdout == ran.shown


@pytest.mark.usefixtures("programs")
def test_the_files_that_it_shows_are_written(folder):
    (tree,) = TREE.findall(README.read_text(encoding="utf-8"))
    shown, place = [], ""
    for line in tree.splitlines()[1:]:
        if not line.startswith("    "):
            place = re.sub(
                r"\d{4}-\d\d-\d\d(?=[_/])|\d\d-\d\d-\d\d", "*", line.split()[0]
            )
        names = re.findall(r"[\w/-]+\.(?:csv|jsonl?|yaml)\b", line)
        shown += [f"experiments/{place}{name}" for name in names]

    assert len(shown) > 6
    assert [pattern for pattern in shown if not list(folder.glob(pattern))] == []
