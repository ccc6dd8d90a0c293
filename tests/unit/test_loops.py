"""What training and testing loops announce, in which order, however they are left."""

from __future__ import annotations

import gc
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drytrack import Experiment, TestLoop, Tracker, TrainingLoop
from drytrack.core import log_events
from drytrack.core.exceptions import (
    AccessOutsideScopeError,
    EventValueError,
    MetricValueError,
    RegistrationError,
)
from drytrack.testing import capture_events

pytestmark = pytest.mark.usefixtures("no_default_trackers")


@pytest.fixture
def experiment(tmp_path):
    return Experiment(name="Digits", par_dir=tmp_path)


@pytest.fixture
def events(experiment):
    with capture_events(experiment) as events:
        yield events


@pytest.fixture
def run(experiment, events):
    with experiment.create_run() as run:
        run.register_model(object(), "net")
        yield run


SHORT = {
    "StartExperimentEvent": "start",
    "StopExperimentEvent": "stop",
    "StartTrainingEvent": "train",
    "EndTrainingEvent": "/train",
    "TerminatedTrainingEvent": "terminated",
    "StartEpochEvent": "epoch",
    "EndEpochEvent": "/epoch",
    "StartTestEvent": "test",
    "EndTestEvent": "/test",
    "TextEvent": "text",
}


def story(events):
    """Return the events by short names, epochs with their numbers."""
    told = []
    for event in events:
        name = SHORT.get(type(event).__name__)
        if name is not None:
            number = getattr(event, "epoch", None)
            told.append(name if number is None else f"{name} {number}")
    return told


def of_type(events, kind):
    return [event for event in events if isinstance(event, kind)]


class Value:
    """A number that is dear to read, as one on a GPU."""

    reads = 0

    def __init__(self, value):
        self.value = value

    def item(self):
        type(self).reads += 1
        return self.value


@pytest.fixture
def lazy():
    Value.reads = 0
    return Value


class Loader:
    batch_size = 4

    def __init__(self, n_batches):
        self.dataset = range(4 * n_batches - 1)

    def __iter__(self):
        return iter(range(0, len(self.dataset), self.batch_size))

    def __len__(self):
        return -(-len(self.dataset) // self.batch_size)


# -- epochs ------------------------------------------------------------------------


def test_epochs_are_announced_in_order(run, events):
    loop = TrainingLoop("net", name="trainer")

    assert list(loop.epochs(2)) == [1, 2]

    assert story(events) == [
        *["start", "train", "epoch 1", "/epoch 1", "epoch 2", "/epoch 2", "/train"],
    ]
    (start,) = of_type(events, log_events.StartTrainingEvent)
    assert (start.source_name, start.model_name) == ("trainer", "net")
    assert (start.start_epoch, start.end_epoch) == (1, 2)
    assert [e.end_epoch for e in of_type(events, log_events.StartEpochEvent)] == [2, 2]


def test_a_loop_registers_itself_as_an_actor(run, events):
    TrainingLoop("net", name="trainer", log_every=5)

    (actor,) = of_type(events, log_events.ActorRegistrationEvent)
    assert (actor.actor_name, actor.model_name) == ("trainer", "net")
    assert actor.metadata == {"class": "TrainingLoop", "log_every": 5}


def test_later_epochs_go_on_after_the_earlier_ones(run):
    loop = TrainingLoop("net", name="trainer")

    assert list(loop.epochs(2)) == [1, 2]
    assert list(loop.epochs(2)) == [3, 4]
    assert list(TrainingLoop("net", name="second").epochs(1)) == [5]
    assert list(loop.epochs(2, start=1)) == [1, 2]
    assert loop.epoch == 2


def test_epochs_go_on_after_the_loaded_checkpoint(run, events):
    loop = TrainingLoop("net", name="trainer")
    loop.load_model("checkpoint", "net.pt", epoch=7)

    assert list(loop.epochs(2)) == [8, 9]
    (load,) = of_type(events, log_events.LoadModelEvent)
    assert (load.model_name, load.definition, load.epoch) == ("net", "checkpoint", 7)


def test_until_does_what_is_left_which_may_be_nothing(run, events):
    loop = TrainingLoop("net", name="trainer")
    loop.load_model("checkpoint", "net.pt", epoch=7)

    assert list(loop.epochs(until=9)) == [8, 9]
    assert list(loop.epochs(until=9)) == []

    assert story(events)[-2:] == ["train", "/train"]


@given(n=st.integers(0, 5), start=st.none() | st.integers(0, 1000))
def test_any_number_of_epochs_is_balanced(n, start, tmp_path_factory):
    experiment = Experiment(name="E", par_dir=tmp_path_factory.mktemp("e"))
    with (
        capture_events(experiment) as events,
        experiment.create_run(record=False) as run,
    ):
        run.register_model(object(), "net")
        epochs = list(TrainingLoop("net", name="t").epochs(n, start))

    first = 1 if start is None else start
    assert epochs == list(range(first, first + n))
    inside = [part for e in epochs for part in (f"epoch {e}", f"/epoch {e}")]
    assert story(events) == ["start", "train", *inside, "/train", "stop"]


@pytest.mark.parametrize(
    "arguments", [{}, {"n": 1, "until": 2}, {"n": -1}], ids=["none", "both", "negative"]
)
def test_epochs_need_one_sound_bound(run, events, arguments):
    loop = TrainingLoop("net", name="trainer")

    with pytest.raises(EventValueError, match="Pass one"):
        loop.epochs(**arguments)

    assert story(events) == ["start"]


def test_epochs_that_are_never_iterated_announce_nothing(run, events):
    loop = TrainingLoop("net", name="trainer")

    loop.epochs(3)
    gc.collect()

    assert story(events) == ["start"]


def test_a_finished_iterator_stays_finished(run, events):
    epochs = TrainingLoop("net", name="trainer").epochs(1)
    list(epochs)

    assert list(epochs) == []
    assert story(events).count("/train") == 1


# -- early ends --------------------------------------------------------------------


def test_terminate_ends_after_the_epoch(run, events):
    loop = TrainingLoop("net", name="trainer")

    for epoch in loop.epochs(10):
        if epoch == 2:
            loop.terminate("converged")

    assert story(events)[-5:] == [
        *["/epoch 1", "epoch 2", "/epoch 2", "terminated 2", "/train"],
    ]
    (terminated,) = of_type(events, log_events.TerminatedTrainingEvent)
    assert terminated.reason == "converged"
    assert list(loop.epochs(1)) == [3]


def test_terminate_in_the_last_epoch_is_announced_too(run, events):
    loop = TrainingLoop("net", name="trainer")

    for _ in loop.epochs(1):
        loop.terminate("diverged")

    assert story(events)[-2:] == ["terminated 1", "/train"]


def test_break_ends_the_training_at_once(run, events):
    for _ in TrainingLoop("net", name="trainer").epochs(10):
        break
    log_events.TextEvent("s", "after", 1, "the loop")

    assert story(events) == [
        *["start", "train", "epoch 1", "terminated 1", "/train", "text"],
    ]


def test_return_ends_the_training_at_once(run, events):
    def train():
        for epoch in TrainingLoop("net", name="trainer").epochs(10):
            if epoch == 2:
                return epoch
        return None

    assert train() == 2
    assert story(events)[-3:] == ["epoch 2", "terminated 2", "/train"]


def test_an_exception_ends_the_training_before_the_run(experiment, events):
    def train(run):
        run.register_model(object(), "net")
        for _ in TrainingLoop("net", name="trainer").epochs(10):
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError), experiment.create_run() as run:
        train(run)

    assert story(events) == [
        *["start", "train", "epoch 1", "terminated 1", "/train", "stop"],
    ]
    assert of_type(events, log_events.StopExperimentEvent)[0].status == "failed"


def test_epochs_in_a_variable_are_closed_before_the_run(experiment, events):
    kept = []

    def train(run):
        run.register_model(object(), "net")
        epochs = TrainingLoop("net", name="trainer").epochs(10)
        kept.append(epochs)
        for _ in epochs:
            raise KeyError("x")

    with pytest.raises(KeyError), experiment.create_run() as run:
        train(run)

    assert story(events)[-3:] == ["terminated 1", "/train", "stop"]
    (terminated,) = of_type(events, log_events.TerminatedTrainingEvent)
    assert terminated.reason == "KeyError"
    assert list(kept[0]) == []


def test_epochs_in_a_variable_are_closed_by_a_run_that_completes(experiment, events):
    with experiment.create_run() as run:
        run.register_model(object(), "net")
        epochs = TrainingLoop("net", name="trainer").epochs(10)
        next(epochs)
        assert story(events)[-1] == "epoch 1"

    assert story(events)[-3:] == ["terminated 1", "/train", "stop"]
    del epochs
    gc.collect()
    assert story(events)[-1] == "stop"


def test_open_loops_are_closed_newest_first(experiment, events):
    def train(run):
        loops = []
        for name in ("outer", "inner"):
            run.register_model(object(), name)
            loops.append(TrainingLoop(name, name=name).epochs(2))
            next(loops[-1])
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"), experiment.create_run() as run:
        train(run)

    ends = of_type(events, log_events.EndTrainingEvent)
    assert [end.source_name for end in ends] == ["inner", "outer"]


def test_a_second_loop_over_epochs_ends_the_first(run, events):
    loop = TrainingLoop("net", name="trainer")
    first = loop.epochs(10)
    next(first)

    assert list(loop.epochs(1)) == [2]

    assert story(events)[1:] == [
        *["train", "epoch 1", "terminated 1", "/train"],
        *["train", "epoch 2", "/epoch 2", "/train"],
    ]
    assert list(first) == []


def iterate():
    for epoch in TrainingLoop("net", name="trainer").epochs(10):
        yield epoch, "of a for loop"


def delegate():
    yield from TrainingLoop("net", name="trainer").epochs(10)


@pytest.mark.parametrize("form", [iterate, delegate])
def test_epochs_in_a_generator_function_that_is_closed_end(run, events, form):
    generator = form()
    next(generator)
    generator.close()

    assert story(events)[-2:] == ["terminated 1", "/train"]


def test_a_break_in_a_thread_reaches_the_right_run(experiment, events):
    def train():
        with experiment.create_run("thread") as run:
            run.register_model(object(), "net")
            for _ in TrainingLoop("net", name="trainer").epochs(10):
                break
            assert story(events)[-1] == "/train"

    with experiment.create_run("main"):
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()

    assert story(events)[-3:] == ["/train", "stop", "stop"]


class InterruptsAtEnd(Tracker):
    """Stands for Ctrl-C while the end of a training is being delivered."""

    notify = Tracker.notify.extend()

    @notify.register
    def _interrupt(self, event: log_events.EndTrainingEvent) -> None:
        raise KeyboardInterrupt


def leave_early(run):
    run.register_model(object(), "net")
    for _ in TrainingLoop("net", name="trainer").epochs(10):
        break


def test_an_interrupt_while_a_loop_is_collected_is_raised_at_the_next_event(
    experiment,
):
    experiment.trackers.subscribe(InterruptsAtEnd())
    reached = []

    def train(run):
        leave_early(run)
        reached.append("after the loop")
        log_events.TextEvent("s", "t", 1, "x")
        reached.append("after the event")

    with pytest.raises(KeyboardInterrupt), experiment.create_run() as run:
        train(run)

    assert reached == ["after the loop"]
    assert run.status == "interrupted"


def test_an_interrupt_while_a_loop_is_collected_is_raised_at_stop(experiment):
    experiment.trackers.subscribe(InterruptsAtEnd())

    with pytest.raises(KeyboardInterrupt), experiment.create_run() as run:
        leave_early(run)

    assert run.status != "running"


# -- batches -----------------------------------------------------------------------


def test_a_loader_is_announced_once_with_what_it_knows(run, events):
    loop = TrainingLoop("net", name="trainer")

    assert list(loop.batches(Loader(3))) == [0, 4, 8]

    (event,) = of_type(events, log_events.IterateBatchEvent)
    assert (event.source_name, event.batch_size) == ("trainer", 4)
    assert (event.n_iter, event.dataset_size) == (3, 11)


def test_a_loader_without_length_is_announced_as_such(run, events):
    loop = TrainingLoop("net", name="trainer")

    assert list(loop.batches(number for number in range(3))) == [0, 1, 2]

    (event,) = of_type(events, log_events.IterateBatchEvent)
    assert (event.batch_size, event.n_iter, event.dataset_size) == (None, None, None)


def test_a_loader_whose_length_is_not_known_yet_is_iterated(run, events):
    class Stream:
        dataset = None

        def __len__(self):
            raise NotImplementedError

        def __iter__(self):
            return iter("ab")

    assert list(TrainingLoop("net", name="trainer").batches(Stream())) == ["a", "b"]


def test_batches_do_not_read_ahead(run):
    pulled = []

    def loader():
        for number in range(3):
            pulled.append(number)
            yield number

    for number in TrainingLoop("net", name="trainer").batches(loader()):
        assert pulled[-1] == number


class Bar(Tracker):
    """Follows batches as a progress bar does."""

    notify = Tracker.notify.extend()

    @notify.register
    def _follow(self, event: log_events.IterateBatchEvent) -> None:
        self.updates = []
        event.push_updates.append(lambda m, n: self.updates.append((dict(m), n)))


@pytest.mark.parametrize("n_batches", [0, 1, 3, 4, 9])
def test_the_bar_is_updated_every_few_batches_and_at_the_end(
    experiment, run, n_batches
):
    experiment.trackers.subscribe(Bar())
    loop = TrainingLoop("net", name="trainer", log_every=4)

    for number, _ in enumerate(loop.batches(range(n_batches)), start=1):
        loop.update(loss=float(number))

    updates = Bar.get_current().updates
    assert sum(n for _, n in updates) == n_batches
    assert [n for _, n in updates[:-1]] == [4] * max(0, len(updates) - 1)
    if n_batches:
        assert updates[-1][0] == {"loss": float(n_batches)}


def test_a_value_is_read_only_every_few_batches(run, events, lazy):
    loop = TrainingLoop("net", name="trainer", log_every=10)

    for number in loop.batches(range(100)):
        loop.update(loss=lazy(number))

    steps = of_type(events, log_events.StepMetricEvent)
    assert lazy.reads == 10
    assert [event.step for event in steps] == list(range(10, 101, 10))
    assert [event.metrics["loss"] for event in steps] == list(range(9, 100, 10))


def test_the_rest_of_a_pass_is_read_once_for_the_bar(run, lazy):
    loop = TrainingLoop("net", name="trainer", log_every=10)

    for number in loop.batches(range(25)):
        loop.update(loss=lazy(number))

    assert lazy.reads == 3


def test_steps_are_counted_through_all_epochs(run, events):
    loop = TrainingLoop("net", name="trainer", log_every=2)

    for _ in loop.epochs(2):
        for _ in loop.batches(range(3)):
            loop.update({"train/loss": 1.0}, accuracy=0.5)

    steps = of_type(events, log_events.StepMetricEvent)
    assert [event.step for event in steps] == [2, 4, 6]
    assert steps[0].metrics == {"train/loss": 1.0, "accuracy": 0.5}
    assert (steps[0].source_name, steps[0].model_name) == ("trainer", "net")


def test_update_works_without_batches(run, events):
    loop = TrainingLoop("net", name="trainer", log_every=1)

    loop.update(loss=1.0)

    (step,) = of_type(events, log_events.StepMetricEvent)
    assert (step.step, step.metrics) == (1, {"loss": 1.0})


def test_a_value_that_is_no_number_is_named(run):
    loop = TrainingLoop("net", name="trainer", log_every=1)

    with pytest.raises(MetricValueError, match="'loss' must be a number, got list"):
        loop.update(loss=[1.0, 2.0])


@pytest.mark.parametrize("log_every", [0, -3])
def test_log_every_is_at_least_one(run, log_every):
    with pytest.raises(ValueError, match="at least 1"):
        TrainingLoop("net", name="trainer", log_every=log_every)


def test_batches_broken_off_leave_the_next_pass_clean(experiment, run):
    experiment.trackers.subscribe(Bar())
    loop = TrainingLoop("net", name="trainer", log_every=10)
    for _ in loop.batches(range(5)):
        break
    for _ in loop.batches(range(5)):
        loop.update(loss=1.0)

    assert Bar.get_current().updates == [({"loss": 1.0}, 5)]


# -- metrics and the rest ----------------------------------------------------------


def test_metrics_belong_to_the_current_epoch(run, events):
    loop = TrainingLoop("net", name="trainer")
    for epoch in loop.epochs(2, start=5):
        loop.log_metrics({"val/loss": 0.5}, accuracy=epoch / 10)

    metrics = of_type(events, log_events.MetricEvent)
    assert [event.epoch for event in metrics] == [5, 6]
    assert metrics[1].metrics == {"val/loss": 0.5, "accuracy": 0.6}
    assert metrics[0].source_name == "trainer"


def test_learning_rates_are_published(run, events):
    loop = TrainingLoop("net", name="trainer")
    for _ in loop.epochs(1):
        loop.log_learning_rate(0.1, "cosine")
        loop.log_learning_rate([0.1, 0.01])

    first, second = of_type(events, log_events.LearningRateEvent)
    assert (first.epoch, first.base_lr, first.scheduler_name) == (1, 0.1, "cosine")
    assert list(second.base_lr) == [0.1, 0.01]


def test_saving_a_model_is_announced_and_writes_nothing(run, events, tmp_path):
    loop = TrainingLoop("net", name="trainer")
    before = sorted(tmp_path.rglob("*"))
    for _ in loop.epochs(1):
        loop.save_model("weights", tmp_path / "net.pt")
    loop.save_model("best", "s3://bucket/net.pt", epoch=0)

    first, second = of_type(events, log_events.SaveModelEvent)
    assert (first.model_name, first.definition, first.epoch) == ("net", "weights", 1)
    assert (second.location, second.epoch) == ("s3://bucket/net.pt", 0)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_loop_needs_a_run_and_a_registered_model(experiment):
    with pytest.raises(AccessOutsideScopeError):
        TrainingLoop("net", name="trainer")
    with (
        experiment.create_run(),
        pytest.raises(RegistrationError, match=r"Call run.register_model"),
    ):
        TrainingLoop("net", name="trainer")


def test_two_loops_of_one_name_are_refused_for_one_model(run):
    TrainingLoop("net", name="loop")
    with pytest.raises(RegistrationError, match="is named 'loop'"):
        TestLoop("net", name="loop")


def test_a_loop_may_be_built_with_the_model_itself(experiment, events):
    model = object()
    with experiment.create_run() as run:
        run.register_model(model, "net")
        assert TrainingLoop(model, name="trainer").model_name == "net"


# -- tests -------------------------------------------------------------------------


def test_a_test_is_announced_around_its_batches(run, events):
    with TestLoop("net", name="test") as test:
        for _ in test.batches(range(3)):
            test.update(accuracy=0.5)
        test.log_metrics(accuracy=0.75)

    assert story(events) == ["start", "test", "/test"]
    (metric,) = of_type(events, log_events.MetricEvent)
    assert (metric.source_name, metric.epoch) == ("test", 0)


def test_a_test_during_training_reports_the_models_epoch(run, events):
    training = TrainingLoop("net", name="trainer")
    test = TestLoop("net", name="test")
    for _ in training.epochs(2):
        with test:
            test.log_metrics(accuracy=0.5)

    metrics = of_type(events, log_events.MetricEvent)
    assert [event.epoch for event in metrics] == [1, 2]
    assert story(events)[2:6] == ["epoch 1", "test", "/test", "/epoch 1"]


def test_an_exception_ends_the_test_once(experiment, events):
    def check(run):
        run.register_model(object(), "net")
        with TestLoop("net", name="test"):
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError), experiment.create_run() as run:
        check(run)

    assert story(events) == ["start", "test", "/test", "stop"]


def test_a_test_that_nobody_ends_is_ended_by_the_run(experiment, events):
    with experiment.create_run() as run:
        run.register_model(object(), "net")
        loop = TestLoop("net", name="test")
        loop.__enter__()

    assert story(events) == ["start", "test", "/test", "stop"]
    loop.close("again")
    assert story(events)[-1] == "stop"


def test_a_resumed_run_counts_its_epochs_from_the_checkpoint(experiment, events):
    with experiment.create_run("a") as run:
        run.register_model(object(), "net")
        assert list(TrainingLoop("net", name="t").epochs(until=3)) == [1, 2, 3]
    with experiment.create_run("a", resume=True) as run:
        run.register_model(object(), "net")
        loop = TrainingLoop("net", name="t")
        loop.load_model("checkpoint", "net.pt", epoch=3)
        assert list(loop.epochs(until=5)) == [4, 5]
