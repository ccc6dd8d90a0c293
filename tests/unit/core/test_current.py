"""Which run is the current one: threads, tasks, bind, and contexts that outlive it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import threading
import weakref

import pytest

from drytrack.core import _current, log_events
from drytrack.core.exceptions import AccessOutsideScopeError, NestedRunError
from drytrack.core.experiment import Experiment
from drytrack.core.track import Tracker
from drytrack.testing import Recorder, capture_events

pytestmark = pytest.mark.usefixtures("no_default_trackers")


@pytest.fixture(autouse=True)
def _no_run_is_left():
    yield
    left = _current.active_runs()
    for run in left:
        run.stop()
    assert left == []


@pytest.fixture
def experiment(tmp_path):
    return Experiment(name="Digits", par_dir=tmp_path)


def publish(text):
    return log_events.TextEvent("source", "name", 1, text)


def texts(events):
    return [e.text for e in events if isinstance(e, log_events.TextEvent)]


def in_thread(function, *args):
    """Call a function in a thread; raise or return what it did."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


# -- outside ---------------------------------------------------------------------


def test_an_event_outside_a_run_says_what_to_do():
    with pytest.raises(AccessOutsideScopeError) as caught:
        publish("x")

    assert str(caught.value) == (
        "TextEvent was created outside a run. Do it inside "
        "`with experiment.create_run():`, or after run.start(); "
        "Event.unpublished(…) builds an event silently."
    )
    assert isinstance(caught.value, RuntimeError)


def test_asking_for_the_current_things_outside_a_run_is_an_error():
    for ask in (Experiment.get_current, Experiment.get_config, Recorder.get_current):
        with pytest.raises(AccessOutsideScopeError, match="outside a run"):
            ask()


def test_an_event_after_the_run_is_outside(experiment):
    with experiment.create_run():
        publish("x")

    with pytest.raises(AccessOutsideScopeError, match="outside a run"):
        publish("y")


def test_an_unpublished_event_needs_no_run():
    event = log_events.TextEvent.unpublished("source", "name", 1, "x")

    assert event.text == "x"


# -- threads -----------------------------------------------------------------------


def test_a_thread_uses_the_only_active_run(experiment):
    with capture_events(experiment) as events, experiment.create_run():
        in_thread(publish, "from a thread")

    assert texts(events) == ["from a thread"]


def test_a_thread_started_before_the_run_uses_it_too(experiment):
    started = threading.Event()

    def wait_and_publish():
        started.wait()
        publish("early bird")

    thread = threading.Thread(target=wait_and_publish)
    thread.start()
    with capture_events(experiment) as events, experiment.create_run():
        started.set()
        thread.join()

    assert texts(events) == ["early bird"]


def test_a_thread_without_a_run_is_told_of_the_several_that_there_are(experiment):
    first, second = (contextvars.Context() for _ in range(2))
    runs = [
        context.run(experiment.create_run(name).start)
        for context, name in ((first, "one"), (second, "two"))
    ]

    with pytest.raises(AccessOutsideScopeError) as caught:
        in_thread(publish, "whose?")
    for context, run in zip((first, second), runs, strict=True):
        context.run(run.stop)

    assert str(caught.value) == (
        "TextEvent was created in a thread or task that belongs to none of the 2 "
        "active runs (Digits/one, Digits/two). Start it with run.bind(function)."
    )


def test_bind_pins_a_function_to_its_run(experiment):
    with capture_events(experiment) as events:
        one = contextvars.Context()
        run = one.run(experiment.create_run("one").start)
        with experiment.create_run("two"):
            publish("two")
            in_thread(run.bind(publish), "one")
            run.bind(publish)("one, here")
            publish("two again")
            assert run.bind(lambda x, *, y: (x, y))(1, y=2) == (1, 2)
        one.run(run.stop)

    assert texts(events) == ["two", "one", "one, here", "two again"]


def test_bind_gives_the_context_back_after_an_exception(experiment, tmp_path):
    other = Experiment(name="Other", par_dir=tmp_path)
    context = contextvars.Context()
    run = context.run(other.create_run().start)
    with capture_events(experiment) as events, experiment.create_run():
        with pytest.raises(ZeroDivisionError):
            run.bind(lambda: 1 / 0)()
        publish("back")
    context.run(run.stop)

    assert texts(events) == ["back"]


def test_a_function_bound_to_a_run_that_is_over_is_outside(experiment):
    with experiment.create_run() as run:
        bound = run.bind(publish)

    with pytest.raises(AccessOutsideScopeError):
        bound("too late")


def test_two_threads_have_a_run_each(experiment):
    class Keeps(Tracker):
        notify = Tracker.notify.extend()

        @notify.register
        def _begin(self, event: log_events.StartExperimentEvent) -> None:
            self.texts = []

        @notify.register
        def _keep(self, event: log_events.TextEvent) -> None:
            self.texts.append(event.text)

    experiment.trackers.subscribe(Keeps())
    together = threading.Barrier(2)

    def train(name):
        with experiment.create_run(name):
            for number in range(50):
                together.wait()
                publish(f"{name} {number}")
            return Keeps.get_current().texts

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        left, right = pool.map(train, ["left", "right"])

    assert left == [f"left {number}" for number in range(50)]
    assert right == [f"right {number}" for number in range(50)]


def test_eight_threads_lose_nothing_and_see_one_order(experiment):
    first, second = Recorder(), Recorder()
    experiment.trackers.subscribe(first=first, second=second)

    def work(thread):
        for number in range(100):
            publish(f"{thread} {number}")

    with experiment.create_run(), concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    seen = texts(first.events)
    assert seen == texts(second.events)
    assert len(seen) == 800
    for thread in range(8):
        own = [text for text in seen if text.startswith(f"{thread} ")]
        assert own == [f"{thread} {number}" for number in range(100)]


def test_a_run_may_be_stopped_in_another_thread(experiment):
    run = experiment.create_run().start()
    in_thread(run.stop)

    with pytest.raises(AccessOutsideScopeError):
        publish("x")
    with experiment.create_run():
        publish("y")


# -- asyncio ---------------------------------------------------------------------


def test_tasks_have_a_run_each(experiment):
    async def train(name):
        with experiment.create_run(name):
            for number in range(5):
                await asyncio.sleep(0)
                publish(f"{name} {number}")
            return Recorder.get_current("Recorder").start_event.run_id == name

    async def main():
        return await asyncio.gather(train("left"), train("right"))

    experiment.trackers.subscribe(Recorder())
    with capture_events(experiment) as events:
        assert asyncio.run(main()) == [True, True]

    left = [text for text in texts(events) if text.startswith("left")]
    right = [text for text in texts(events) if text.startswith("right")]
    assert left == [f"left {number}" for number in range(5)]
    assert right == [f"right {number}" for number in range(5)]
    assert sorted([*left, *right]) == sorted(texts(events))


def test_a_task_inherits_the_run_that_it_was_started_in(experiment):
    async def main():
        with experiment.create_run("outer"):
            task = asyncio.create_task(asyncio.to_thread(publish, "from below"))
            await task

    with capture_events(experiment) as events:
        asyncio.run(main())

    assert texts(events) == ["from below"]


def test_a_cancelled_task_interrupts_its_run(experiment):
    runs = []

    async def train():
        with experiment.create_run() as run:
            runs.append(run)
            await asyncio.sleep(3600)

    async def main():
        task = asyncio.create_task(train())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())

    assert runs[0].status == "interrupted"


def test_a_run_held_by_an_async_generator_ends_in_another_context(experiment):
    async def stream():
        with experiment.create_run() as run:
            yield run
            yield run

    async def main():
        generator = stream()
        run = await anext(generator)
        await asyncio.create_task(generator.aclose())
        return run

    run = asyncio.run(main())

    assert run.status == "interrupted"
    with experiment.create_run():
        pass


# -- contexts that outlive their run -----------------------------------------------


def test_a_context_that_outlives_its_run_is_outside(experiment):
    with experiment.create_run():
        stale = contextvars.copy_context()

    with pytest.raises(AccessOutsideScopeError):
        stale.run(publish, "too late")


def test_a_stale_context_goes_on_with_the_only_active_run(experiment):
    with experiment.create_run("first"):
        stale = contextvars.copy_context()

    with capture_events(experiment) as events, experiment.create_run("second"):
        stale.run(publish, "goes on")

    assert texts(events) == ["goes on"]


def test_a_run_may_start_in_a_stale_context(experiment):
    with experiment.create_run("first"):
        stale = contextvars.copy_context()

    def second():
        with experiment.create_run("second") as run:
            publish("x")
        return run.status

    assert stale.run(second) == "completed"


def test_a_second_run_in_the_same_context_is_refused_in_a_thread_it_is_not(experiment):
    def other():
        with experiment.create_run():
            return True

    with experiment.create_run("one"):
        with pytest.raises(NestedRunError):
            other()
        assert in_thread(other)


def test_an_ended_run_is_not_kept_alive_by_its_context(experiment):
    with experiment.create_run() as run:
        stale = contextvars.copy_context()
    gone = weakref.ref(run)
    del run
    gc.collect()

    assert gone() is None
    del stale


def test_an_exception_leaves_no_current_run(experiment):
    with pytest.raises(ValueError, match="x"), experiment.create_run():
        raise ValueError("x")

    with pytest.raises(AccessOutsideScopeError):
        publish("x")


def test_the_dispatcher_publishes_to_its_own_run(experiment, tmp_path):
    other = Experiment(name="Other", par_dir=tmp_path)
    event = log_events.TextEvent.unpublished("source", "name", 1, "silent")
    context = contextvars.Context()
    with capture_events(other) as events:
        run = context.run(other.create_run().start)
        with experiment.create_run():
            other.trackers.publish(event)
        context.run(run.stop)

    assert texts(events) == ["silent"]
    with pytest.raises(AccessOutsideScopeError, match="0 active runs"):
        other.trackers.publish(event)
