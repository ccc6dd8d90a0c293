"""What it costs to publish an event, beside what it would cost without a bus.

    python benchmarks/dispatch.py

The yardstick is the creation of one frozen slotted dataclass with four fields,
and a loop over as many bound methods as there are handlers. What the door does,
copying and checking five floats, is measured beside it and subtracted: a plain
loop checks nothing. Ends with status 1 where a limit is missed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping

from _measure import interleave

import drytrack
from drytrack.core import _current, _door
from drytrack.core.log_events import MetricEvent, TextEvent
from drytrack.core.track import Tracker

ROUNDS = 35
NUMBER = 3_000
METRICS = {"loss": 0.1, "accuracy": 0.2, "f1": 0.3, "recall": 0.4, "precision": 0.5}
# Case → (handlers that are called, most that it may cost in yardsticks).
CASES = {
    "no tracker": (0, 1.3),
    "one tracker that does not handle it": (0, 1.3),
    "five trackers that do not handle it": (0, 1.3),
    "one handler": (1, 1.8),
    "five handlers": (5, 1.6),
}
IMPORT_LIMIT = 1.3
GROWTH_LIMIT_MB = 2.0
STANDARD = "dataclasses, functools, pathlib, logging, json, datetime, typing_extensions"

Call = Callable[[], object]


@dataclasses.dataclass(frozen=True, slots=True)
class PlainEvent:
    """What an event would be without a bus."""

    model_name: str
    source_name: str
    epoch: int
    metrics: Mapping[str, float]


class Listener(Tracker):
    """Handles metrics, by doing nothing."""

    notify = Tracker.notify.extend()

    @notify.register
    def _hear(self, event: MetricEvent) -> None: ...


class Deaf(Tracker):
    """Handles something else."""

    notify = Tracker.notify.extend()

    @notify.register
    def _hear(self, event: TextEvent) -> None: ...


class Plain:
    """A listener without a bus."""

    def hear(self, event: object) -> None:
        """Do nothing."""


def yardstick(n_handlers: int) -> Call:
    """Return a loop of creations and calls of bound methods."""
    handlers = [Plain().hear for _ in range(n_handlers)]

    def loop() -> None:
        for _ in range(NUMBER):
            event = PlainEvent("model", "source", 1, METRICS)
            for handler in handlers:
                handler(event)

    return loop


def pass_door() -> None:
    """Check and copy five floats, again and again."""
    for _ in range(NUMBER):
        _door.metrics(METRICS, "metrics")


def publish() -> None:
    """Publish to the current run, again and again."""
    for _ in range(NUMBER):
        MetricEvent("model", "source", 1, METRICS)


@contextlib.contextmanager
def watched_by(*trackers: Tracker) -> Iterator[Call]:
    """Start a run with trackers, record off; give what publishes in it."""
    with tempfile.TemporaryDirectory() as folder:
        experiment = drytrack.Experiment({"lr": 0.1}, name="dispatch", par_dir=folder)
        named = {f"t{number}": tracker for number, tracker in enumerate(trackers)}
        experiment.trackers.subscribe(**named)
        running = _current.active_runs()
        parent = running[-1] if running else None
        with experiment.create_run(record=False, parent=parent) as run:
            yield run.bind(publish)


def measure_bus() -> dict[str, float]:
    """Return seconds for one event, of each case and of what it is compared with."""
    with contextlib.ExitStack() as stack:
        trackers: dict[str, list[Tracker]] = {
            "no tracker": [],
            "one tracker that does not handle it": [Deaf()],
            "five trackers that do not handle it": [Deaf() for _ in range(5)],
            "one handler": [Listener()],
            "five handlers": [Listener() for _ in range(5)],
        }
        functions: dict[str, Call] = {
            case: stack.enter_context(watched_by(*trackers[case])) for case in CASES
        }
        for number in (0, 1, 5):
            functions[f"yardstick {number}"] = yardstick(number)
        functions["door"] = pass_door
        functions.update(peers())
        medians = interleave(functions, rounds=ROUNDS, number=1)
    return {name: taken / NUMBER for name, taken in medians.items()}


def peers() -> dict[str, Call]:
    """Return the same loop through other packages, where they are installed."""
    loops: dict[str, Call] = {}
    for number in (1, 5):
        if importlib.util.find_spec("pyee"):
            loops[f"pyee {number}"] = _through_pyee(number)
        if importlib.util.find_spec("pluggy"):
            loops[f"pluggy {number}"] = _through_pluggy(number)
        if importlib.util.find_spec("blinker"):
            loops[f"blinker {number}"] = _through_blinker(number)
    return loops


def _through_pyee(n_handlers: int) -> Call:
    from pyee.base import EventEmitter

    emitter = EventEmitter()
    for _ in range(n_handlers):
        emitter.on("metric", Plain().hear)

    def loop() -> None:
        for _ in range(NUMBER):
            emitter.emit("metric", PlainEvent("model", "source", 1, METRICS))

    return loop


def _through_pluggy(n_handlers: int) -> Call:
    import pluggy

    class Spec:
        @pluggy.HookspecMarker("bench")
        def hear(self, event: object) -> None: ...

    class Plugin:
        @pluggy.HookimplMarker("bench")
        def hear(self, event: object) -> None: ...

    manager = pluggy.PluginManager("bench")
    manager.add_hookspecs(Spec)
    for _ in range(n_handlers):
        manager.register(Plugin())
    hear = manager.hook.hear

    def loop() -> None:
        for _ in range(NUMBER):
            hear(event=PlainEvent("model", "source", 1, METRICS))

    return loop


def _through_blinker(n_handlers: int) -> Call:
    import blinker

    signal = blinker.Signal()
    plain = [Plain() for _ in range(n_handlers)]
    for listener in plain:
        signal.connect(listener.hear)

    def loop() -> None:
        assert len(plain) == n_handlers  # they are held weakly
        for _ in range(NUMBER):
            signal.send(PlainEvent("model", "source", 1, METRICS))

    return loop


def resident_mb() -> float | None:
    """Return the resident memory of this process; None where it is not told."""
    statm = pathlib.Path("/proc/self/statm")
    if statm.exists():
        import resource

        return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**20
    if importlib.util.find_spec("psutil"):
        import psutil

        return float(psutil.Process().memory_info().rss) / 2**20
    return None


def measure_memory() -> float | None:
    """Return by how many MB a million events enlarge the process."""
    with watched_by(*(Listener() for _ in range(5))) as loop:
        for _ in range(20):
            loop()
        before = resident_mb()
        for _ in range(1_000_000 // NUMBER + 1):
            loop()
        after = resident_mb()
    return None if before is None or after is None else after - before


def measure_imports() -> dict[str, float]:
    """Return the processor seconds of imports, each in a fresh interpreter."""
    spent: dict[str, list[float]] = {}

    def importing(name: str, what: str) -> Call:
        code = (
            "import time; began = time.process_time()\n"
            f"{what}\n"
            "print(time.process_time() - began)"
        )

        def run() -> None:
            done = subprocess.run(  # noqa: S603  # our own code
                [sys.executable, "-c", code], capture_output=True, check=True, text=True
            )
            spent.setdefault(name, []).append(float(done.stdout))

        return run

    functions = {
        "standard library": importing("standard library", f"import {STANDARD}"),
        "drytrack": importing("drytrack", "import drytrack"),
        "drytrack, used": importing(
            "drytrack, used", "from drytrack import Experiment, TrainingLoop"
        ),
    }
    interleave(functions, rounds=25, number=1)
    return {name: sorted(taken)[len(taken) // 2] for name, taken in spent.items()}


def main() -> int:
    """Print the tables; return 1 where a limit is missed."""
    drytrack.init_trackers("none")
    missed = 0

    def row(name: str, cost: str, ratio: float | None, limit: float | None) -> None:
        nonlocal missed
        verdict = ""
        if limit is not None and ratio is not None:
            missed += ratio > limit
            verdict = f"{limit:8.1f}  {'ok' if ratio <= limit else 'MISSED'}"
        times = "" if ratio is None else f"{ratio:8.2f}"
        print(f"{name:<52}{cost:>12}{times:>9}{verdict}")

    medians = measure_bus()
    door = medians.pop("door")
    print(f"{'publish one MetricEvent, record off':<52}{'µs':>12}{'ratio':>9}   limit")
    for number in (0, 1, 5):
        row(
            f"yardstick, {number} bound methods",
            _us(medians[f"yardstick {number}"]),
            1,
            None,
        )
    row("door: five floats", _us(door), None, None)
    for case, (called, limit) in CASES.items():
        cost = medians[case] - door
        row(
            f"{case}, without door",
            _us(cost),
            cost / medians[f"yardstick {called}"],
            limit,
        )
    for name in (
        name for name in medians if name.split()[0] in ("pyee", "pluggy", "blinker")
    ):
        ratio = medians[name] / medians[f"yardstick {name.split()[1]}"]
        row(f"{name} handlers", _us(medians[name]), ratio, None)

    growth = measure_memory()
    if growth is not None:
        missed += growth > GROWTH_LIMIT_MB
        print(f"\na million events to five handlers: {growth:+.2f} MB resident")

    imports = measure_imports()
    print(f"\n{'import, processor time':<52}{'µs':>12}{'ratio':>9}   limit")
    base = imports["standard library"]
    for name, taken in imports.items():
        limit_of_import = IMPORT_LIMIT if name == "drytrack" else None
        row(name, _us(taken), taken / base, limit_of_import)
    return 1 if missed else 0


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.3f}"


if __name__ == "__main__":
    sys.exit(main())
