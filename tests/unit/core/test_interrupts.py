from __future__ import annotations

import dis
import functools
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import drytrack
from drytrack.core import _bus
from drytrack.core._bell import Bell
from drytrack.core._record import ENDED, read_record
from drytrack.core.log_events import MetricEvent, TextEvent
from drytrack.core.run import Run
from drytrack.core.track import Tracker

if TYPE_CHECKING:
    from types import CodeType, FrameType

# After these, and nowhere else, Python calls the handlers of signals.
AFTER = ("CALL", "RESUME", "JUMP_BACKWARD")

FILES = ("_bell.py", "_bus.py", "_route.py", "_worker.py", "threading.py")
FILES_OF_THE_END = (*FILES[:-1], "run.py", "_keeper.py", "journal.py")


class Interrupter:
    """Raises KeyboardInterrupt at the n-th place where a signal's handler could."""

    def __init__(
        self,
        place: int,
        files: tuple[str, ...] = FILES,
        on_call: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.left = place
        self.files = files
        self.on_call = on_call
        self.hit = False

    def call(self, action: Callable[[], object]) -> BaseException | None:
        """Call an action; return what it raised."""
        before = sys.gettrace()
        sys.settrace(self.enter)
        try:
            action()
        except BaseException as error:  # noqa: BLE001  # what was raised is the answer
            return error
        finally:
            sys.settrace(before)
        return None

    def enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        self.on_call(code.co_name)
        if self.hit or not code.co_filename.endswith(self.files):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        names = name_instructions(code)
        last = ""

        def step(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal last
            if event != "opcode" or self.hit:
                return step
            before, last = last, names.get(frame.f_lasti, "")
            if before.startswith(AFTER):
                self.left -= 1
                if not self.left:
                    self.hit = True
                    raise KeyboardInterrupt
            return step

        return step


@functools.cache
def name_instructions(code: CodeType) -> dict[int, str]:
    return {step.offset: step.opname for step in dis.get_instructions(code)}


class Echo(Tracker):
    """Answers each metric event by a text."""

    notify = Tracker.notify.extend()

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[int] = []

    @notify.register
    def _answer(self, event: MetricEvent) -> None:
        self.epochs.append(event.epoch)
        TextEvent("echo", "answer", event.epoch, "heard")


class Behind(Tracker):
    """Is fed by a worker."""

    background = True
    notify = Tracker.notify.extend()

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[int] = []

    @notify.register
    def _keep(self, event: MetricEvent) -> None:
        self.epochs.append(event.epoch)


class Publisher:
    """Publishes events of growing epochs."""

    epoch = 0

    def publish(self) -> None:
        self.epoch += 1
        MetricEvent("model", "source", self.epoch, {"loss": 1.0})


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setattr(_bus, "RING_SIZE", 8)  # so that workers are woken often
    experiment = drytrack.Experiment(None, name="exp", par_dir=tmp_path)
    experiment.trackers.remove_all()
    return experiment


def is_free(run: Run[Any]) -> bool:
    """Return whether another thread can have the bus."""
    found = []

    def look() -> None:
        if run.bus.lock.acquire(timeout=5):
            found.append(not run.bus.busy)
            run.bus.lock.release()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found == [True]


@pytest.mark.parametrize("what", ["publish", "publish a new type", "flush", "resume"])
def test_an_interrupt_at_any_place_leaves_the_bus_and_its_workers_usable(
    experiment, what
):
    echo, behind, publisher = Echo(), Behind(), Publisher()
    experiment.trackers.subscribe(echo, behind)
    with experiment.create_run() as run:
        actions: dict[str, Callable[[], object]] = {
            "publish": publisher.publish,
            "publish a new type": lambda: (run.routes.clear(), publisher.publish()),
            "flush": run.flush,
            "resume": lambda: experiment.trackers.resume("Behind"),
        }
        Interrupter(0).call(actions[what])  # Python 3.13 prepares code on its first run
        place, hit = 0, True
        while hit:
            place += 1
            interrupter = Interrupter(place)
            error = interrupter.call(actions[what])
            hit = interrupter.hit
            assert isinstance(error, KeyboardInterrupt) == hit, place
            assert is_free(run), place
            publisher.publish()
            assert run.flush(30), place
            assert echo.epochs[-1] == behind.epochs[-1] == publisher.epoch
    assert place > 1


def test_an_interrupt_while_another_thread_has_the_bus_leaves_it_usable(experiment):
    echo, publisher = Echo(), Publisher()
    experiment.trackers.subscribe(echo)
    with experiment.create_run() as run:
        publisher.publish()
        place, hit = 0, True
        while hit:
            place += 1
            held, waited_for = threading.Event(), threading.Event()

            def hold(held=held, waited_for=waited_for) -> None:
                with run.bus.lock:
                    held.set()
                    waited_for.wait(30)

            def look(name: str, waited_for=waited_for) -> None:
                if name == "_wait_for_turn":
                    waited_for.set()

            holder = threading.Thread(target=hold)
            holder.start()
            held.wait(30)
            interrupter = Interrupter(place, on_call=look)
            error = interrupter.call(publisher.publish)
            waited_for.set()
            holder.join()
            hit = interrupter.hit
            assert isinstance(error, KeyboardInterrupt) == hit, place
            assert is_free(run), place
            publisher.publish()
            assert echo.epochs[-1] == publisher.epoch
    assert place > 1


@pytest.mark.slow
def test_an_interrupt_at_any_place_of_the_end_leaves_the_run_ended(experiment):
    experiment.trackers.subscribe(Echo(), Behind())
    place, hit, left_open = 0, True, 0
    while hit:
        place += 1
        run = experiment.create_run(f"run {place}").start()
        Publisher().publish()
        interrupter = Interrupter(place, FILES_OF_THE_END)
        error = interrupter.call(run.stop)
        hit = interrupter.hit
        assert isinstance(error, KeyboardInterrupt) == hit, place
        assert is_free(run), place
        if run.status == "running":  # it came before the end had begun
            left_open += 1
            run.stop("interrupted")
        assert run.path is not None
        assert read_record(run.path).status in ENDED, place
        run.bus.guests["Behind"].worker.abandon()  # perhaps nobody had come to that
    assert place > 1
    assert left_open < 10


def test_a_bell_rings_until_it_is_heard():
    bell = Bell()
    assert not bell.wait(0)
    bell.ring()
    bell.ring()
    assert bell.wait(30)
    assert not bell.wait(0)


def test_a_bell_wakes_who_waits():
    bell = Bell()
    heard = []
    thread = threading.Thread(target=lambda: heard.append(bell.wait(30)))
    thread.start()
    bell.ring()
    thread.join()
    assert heard == [True]
