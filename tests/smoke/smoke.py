"""Tries an installed wheel: what a user gets from `pip install drytrack` alone.

Run it with ``python -I``, by an interpreter that has the wheel and its dependencies
and nothing else. It leaves nothing behind and needs no test library.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import importlib.metadata
import io
import json
import os
import pkgutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

LOSSES = [1.5, 0.1, float("nan")]


def import_loads_nothing_but_typing_extensions() -> None:
    before = set(sys.modules)
    importlib.import_module("drytrack")
    loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
    surplus = loaded - sys.stdlib_module_names - {"drytrack", "typing_extensions"}
    assert not surplus, f"import drytrack loads {sorted(surplus)}"


def wheel_holds_the_package_and_its_types_alone() -> None:
    files = importlib.metadata.files("drytrack") or []
    names = {file.as_posix() for file in files}
    assert "drytrack/py.typed" in names, "py.typed is missing"
    folders = {name.partition("/")[0] for name in names}
    surplus = {
        name
        for name in folders
        # "..": the command, in the folder for commands
        if name not in ("drytrack", "..") and not name.endswith(".dist-info")
    }
    assert not surplus, f"the wheel also installs {sorted(surplus)}"


def every_module_imports_or_names_what_it_needs() -> None:
    package = importlib.import_module("drytrack")
    for module in pkgutil.walk_packages(package.__path__, "drytrack."):
        if any(part.startswith("_") for part in module.name.split(".")):
            continue  # loaded by a public one, when that is used
        try:
            importlib.import_module(module.name)
        except ImportError as err:
            assert "pip install" in str(err), f"{module.name}: {err!r}"


def every_public_name_resolves() -> None:
    package = importlib.import_module("drytrack")
    for name in package.__all__:
        getattr(package, name)


def first_run_is_silent_on_standard_output_and_reads_back() -> None:
    from drytrack import Experiment, TrainingLoop
    from drytrack.trackers.csv import CSVDumper

    experiment = Experiment({"lr": 0.1}, name="Smoke", par_dir="runs")
    experiment.trackers.subscribe(CSVDumper())
    output, console = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(console),
        experiment.create_run() as run,
    ):
        model = run.register_model(object(), name="mlp")
        loop = TrainingLoop(model, name="trainer")
        for epoch in loop.epochs(len(LOSSES)):
            for batch in loop.batches([[1, 2], [3, 4]]):
                loop.update(loss=float(sum(batch)))
            loop.log_metrics(loss=LOSSES[epoch - 1])

    assert output.getvalue() == "", f"standard output: {output.getvalue()!r}"
    assert "Smoke" in console.getvalue(), f"standard error: {console.getvalue()!r}"

    [record] = Path("runs/.drytrack").rglob("record.json")
    status = json.loads(record.read_text("utf-8"))["status"]
    assert status == "completed", f"status {status!r}"

    columns = []
    for path in Path("runs").rglob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            columns.append([row.get("loss") for row in csv.DictReader(file)])
    wanted = [str(loss) for loss in LOSSES]
    assert wanted in columns, f"columns named loss: {columns}"


CLAIMS: list[Callable[[], None]] = [
    import_loads_nothing_but_typing_extensions,
    wheel_holds_the_package_and_its_types_alone,
    every_module_imports_or_names_what_it_needs,
    every_public_name_resolves,
    first_run_is_silent_on_standard_output_and_reads_back,
]


def main() -> int:
    n_failed = 0
    for claim in CLAIMS:
        try:
            claim()
        except Exception:  # noqa: BLE001  # each claim is tried, whatever came before
            n_failed += 1
            print(f"FAILED {claim.__name__}")
            traceback.print_exc(file=sys.stdout)
    print(f"smoke: {len(CLAIMS) - n_failed} passed, {n_failed} failed")
    return 1 if n_failed else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            code = main()
        finally:
            # Windows keeps a folder that a process works in.
            os.chdir(Path(folder).parent)
    sys.exit(code)
