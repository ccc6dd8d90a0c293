"""Models and actors: registering twice, elsewhere, and again."""

from __future__ import annotations

import contextvars

import pytest

from drytrack.core import log_events
from drytrack.core.exceptions import InvalidNameError, RegistrationError, RunStateError
from drytrack.core.experiment import Experiment
from drytrack.testing import capture_events

pytestmark = pytest.mark.usefixtures("no_default_trackers")


@pytest.fixture
def experiment(tmp_path):
    return Experiment(name="Digits", par_dir=tmp_path)


class Net:
    """A model that can be neither hashed nor compared."""

    __hash__ = None

    def __eq__(self, other):
        raise RuntimeError("not comparable")

    def __repr__(self):
        return "Net(in=64, out=10)"


class Trainer:
    def __init__(self, name="trainer"):
        self.name = name
        self.lr = 0.1
        self.api_key = "hunter2"


def of_type(events, kind):
    return [event for event in events if isinstance(event, kind)]


def test_a_model_is_announced_with_its_architecture(experiment):
    net = Net()
    with capture_events(experiment) as events, experiment.create_run() as run:
        assert run.register_model(net, name="mlp") is net

    (event,) = of_type(events, log_events.ModelRegistrationEvent)
    assert (event.model_name, event.architecture_repr) == ("mlp", "Net(in=64, out=10)")


def test_a_model_is_named_after_its_class(experiment):
    with capture_events(experiment) as events, experiment.create_run() as run:
        run.register_model(Net())

    (event,) = of_type(events, log_events.ModelRegistrationEvent)
    assert event.model_name == "Net"


def test_a_model_registered_twice_is_an_error_with_a_remedy(experiment):
    net = Net()
    with experiment.create_run() as run:
        run.register_model(net, "mlp")
        with pytest.raises(RegistrationError, match=r"as 'mlp' already.*unregister"):
            run.register_model(net, "another")


def test_two_models_of_one_name_are_an_error_with_a_remedy(experiment):
    with experiment.create_run() as run:
        run.register_model(Net(), "mlp")
        with pytest.raises(RegistrationError, match=r"registered as 'mlp'.*name=…"):
            run.register_model(Net(), "mlp")


def test_a_model_of_another_active_run_is_an_error_that_names_it(experiment):
    net = Net()
    with experiment.create_run("outer") as outer:
        outer.register_model(net)
        with experiment.create_run("inner", parent=outer) as inner:
            with pytest.raises(RegistrationError, match="in run Digits/outer"):
                inner.register_model(net)
            outer.unregister_model(net)
            inner.register_model(net)


def test_a_model_may_be_registered_again_in_the_next_run(experiment):
    net = Net()
    for _ in range(2):
        with experiment.create_run() as run:
            run.register_model(net, "mlp")


def test_a_refused_registration_announces_nothing(experiment):
    net = Net()
    with capture_events(experiment) as events, experiment.create_run() as run:
        run.register_model(net, "mlp")
        for name in ("mlp", "other"):
            with pytest.raises(RegistrationError):
                run.register_model(net, name)
        with pytest.raises(InvalidNameError):
            run.register_model(Net(), "a\nb")
        run.register_model(Net(), "a/b: größe 🙂")

    names = [e.model_name for e in of_type(events, log_events.ModelRegistrationEvent)]
    assert names == ["mlp", "a/b: größe 🙂"]


def test_a_model_that_was_unregistered_frees_its_name_and_actors(experiment):
    net, trainer = Net(), Trainer()
    with experiment.create_run() as run:
        run.register_model(net, "mlp")
        run.register_actor(trainer, net)
        run.unregister_model("mlp")
        with pytest.raises(RegistrationError, match="not registered"):
            run.unregister_actor(trainer)
        run.register_model(Net(), "mlp")
        run.register_model(net, "old")
        run.register_actor(trainer, net)


def test_unregistering_what_is_unknown_is_an_error(experiment):
    with experiment.create_run() as run:
        run.register_model(Net(), "known")
        with pytest.raises(RegistrationError, match="registered: 'known'"):
            run.unregister_model("unknown")
        with pytest.raises(RegistrationError, match=r"Call run.register_actor"):
            run.unregister_actor(Trainer())


@pytest.mark.parametrize("when", ["before", "after"])
def test_registering_outside_the_run_says_where_to(experiment, when):
    run = experiment.create_run()
    if when == "after":
        with run:
            pass

    with pytest.raises(RunStateError, match=r"with experiment.create_run"):
        run.register_model(Net())
    with pytest.raises(RunStateError, match=r"with experiment.create_run"):
        run.register_actor(Trainer(), "net")


def test_an_actor_is_announced_with_its_metadata_and_without_secrets(experiment):
    with capture_events(experiment) as events, experiment.create_run() as run:
        net = run.register_model(Net(), "mlp")
        assert run.register_actor(Trainer(), net) == "trainer"

    (model,) = of_type(events, log_events.ModelRegistrationEvent)
    (actor,) = of_type(events, log_events.ActorRegistrationEvent)
    assert (actor.actor_name, actor.model_name) == ("trainer", "mlp")
    assert actor.model_ts == model.model_ts
    assert "0.1" in repr(actor.metadata)
    assert "hunter2" not in repr(actor)


def test_an_actor_may_work_on_two_models_and_not_twice_on_one(experiment):
    trainer = Trainer()
    with experiment.create_run() as run:
        run.register_model(Net(), "generator")
        run.register_model(Net(), "discriminator")
        run.register_actor(trainer, "generator")
        run.register_actor(trainer, "discriminator")
        with pytest.raises(RegistrationError, match=r"already.*unregister_actor"):
            run.register_actor(trainer, "generator")


def test_two_actors_of_one_name_are_an_error_for_one_model(experiment):
    with experiment.create_run() as run:
        run.register_model(Net(), "mlp")
        run.register_actor(Trainer(), "mlp")
        with pytest.raises(RegistrationError, match="actor of model 'mlp' is named"):
            run.register_actor(Trainer(), "mlp")


def test_an_actor_of_an_unknown_model_says_to_register_it(experiment):
    with (
        experiment.create_run() as run,
        pytest.raises(RegistrationError, match=r"Call run.register_model"),
    ):
        run.register_actor(Trainer(), Net())


def test_an_actor_that_was_unregistered_may_come_back(experiment):
    trainer = Trainer()
    with experiment.create_run() as run:
        run.register_model(Net(), "mlp")
        for _ in range(2):
            run.register_actor(trainer, "mlp")
            run.unregister_actor(trainer)


def test_metadata_may_be_given(experiment):
    with capture_events(experiment) as events, experiment.create_run() as run:
        run.register_model(Net(), "mlp")
        run.register_actor(object(), "mlp", "loop", metadata={"optimizer": "sgd"})

    (actor,) = of_type(events, log_events.ActorRegistrationEvent)
    assert actor.metadata == {"optimizer": "sgd"}


def test_a_repr_that_raises_or_is_huge_or_no_text_is_survived(experiment):
    class Raises:
        def __repr__(self):
            raise RuntimeError("no")

    class Huge:
        def __repr__(self):
            return "x" * 10_000_000

    class Surrogate:
        def __repr__(self):
            return "\ud800"

    with capture_events(experiment) as events, experiment.create_run() as run:
        for model in (Raises(), Huge(), Surrogate()):
            run.register_model(model)

    raises, huge, surrogate = (
        event.architecture_repr
        for event in of_type(events, log_events.ModelRegistrationEvent)
    )
    assert "Raises" in raises
    assert "RuntimeError" in raises
    assert 100_000 <= len(huge) < 101_000
    assert "10000000 characters" in huge
    surrogate.encode()


def test_registering_in_a_run_that_is_not_the_contexts_reaches_its_trackers(experiment):
    context = contextvars.Context()
    with capture_events(experiment) as events:
        run = context.run(experiment.create_run("one").start)
        with experiment.create_run("two"):
            run.register_model(Net(), "for one")
        context.run(run.stop)

    assert len(of_type(events, log_events.ModelRegistrationEvent)) == 1
