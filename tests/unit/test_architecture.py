"""The modules are those, and import what, docs/architecture.md says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "drytrack"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TRACKERS = sorted(PACKAGE.glob("trackers/[!_]*.py"))
SHARED = {"drytrack.trackers.base"}


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere, but for types alone."""
    found = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.orelse
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0  # written in full
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            nodes += ast.iter_child_nodes(node)
    return found


def test_every_file_of_the_page_exists():
    table = PAGE.partition("## Where to look")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]

    assert len(named) > 40
    for name in named:
        pattern = name.replace("<name>", "*").rstrip("/")
        assert [*PACKAGE.glob(pattern), *PACKAGE.glob(f"trackers/{pattern}")], name


def test_the_core_imports_nothing_of_what_is_built_upon_it():
    outward = {
        f"{path.name}: {name}"
        for path in PACKAGE.glob("core/*.py")
        for name in imported(path)
        if re.match(r"drytrack\.(?!core\.)", name) and name != "drytrack.__version__"
    }

    assert outward == set()


def test_no_tracker_imports_another():
    assert len(TRACKERS) > 15
    names = {f"drytrack.trackers.{path.stem}" for path in TRACKERS} - SHARED
    crossing = {
        f"{path.name}: {name}"
        for path in TRACKERS
        for name in imported(path)
        if any(name == other or name.startswith(f"{other}.") for other in names)
    }

    assert crossing == set()
