"""Going on with a run from a checkpoint, here and elsewhere."""

from __future__ import annotations

import json
import uuid

import pytest

from drytrack.core.exceptions import RecordError, RunExistsError, RunStateError
from drytrack.core.experiment import Experiment
from drytrack.trackers.base import Backend

pytestmark = pytest.mark.usefixtures("no_default_trackers")

NO_DIST = "ignore:torch.distributed is disabled:UserWarning"


class Hosted(Backend):
    """A backend that gives each run an id of its own, and finds it again."""

    notify = Backend.notify.extend()

    def __init__(self, server):
        super().__init__()
        self.server = server

    def open(self, info):
        self.id = self.state.setdefault("id", uuid.uuid4().hex)
        self.server.setdefault(self.id, [])

    def log_metrics(self, metrics, at):
        self.server[self.id].append((at.step, dict(metrics)))

    def finish(self, status, error):
        pass


@pytest.fixture
def server():
    return {}


def make_experiment(folder, server, name="Digits"):
    experiment = Experiment(name=name, par_dir=folder)
    experiment.trackers.subscribe(Hosted(server))
    return experiment


@pytest.fixture
def experiment(tmp_path, server):
    return make_experiment(tmp_path / "here", server)


def test_a_restart_goes_on_with_the_run(experiment, tmp_path, server):
    with experiment.create_run() as run:
        run.log({"loss": 2.0}, step=10)
        state = experiment.state_dict()
    restarted = make_experiment(tmp_path / "here", server)
    restarted.load_state_dict(state)

    with restarted.create_run() as again:
        again.log({"loss": 1.0})

    assert (again.id, again.uuid, again.attempt) == (run.id, run.uuid, 2)
    (points,) = server.values()
    assert points == [(10, {"loss": 2.0}), (11, {"loss": 1.0})]


@pytest.mark.parametrize("record", [True, False])
def test_on_another_machine_the_hosted_run_goes_on(
    experiment, tmp_path, server, record
):
    with experiment.create_run() as run:
        run.log({"loss": 2.0}, step=10)
        run.summary["best"] = 2.0
        run.flush()
        state = run.state_dict()
    elsewhere = make_experiment(tmp_path / "there", server)
    elsewhere.load_state_dict(state)

    with elsewhere.create_run(record=record) as again:
        again.log({"loss": 1.0}, step=11)

    assert (again.id, again.uuid, again.attempt) == (run.id, run.uuid, 2)
    assert again.resumed
    assert again.summary["best"] == 2.0
    assert len(server) == 1


def test_on_another_machine_steps_count_on(experiment, tmp_path, server):
    with experiment.create_run() as run:
        run.log({"loss": 2.0}, step=10)
        state = run.state_dict()
    elsewhere = make_experiment(tmp_path / "there", server)
    elsewhere.load_state_dict(state)

    with elsewhere.create_run() as again:
        again.log({"loss": 1.0})

    assert again.last_steps["run"] == 11
    record = json.loads((again.path / "record.json").read_text())
    assert (record["uuid"], len(record["attempts"])) == (run.uuid, 2)


def test_the_state_can_be_taken_at_any_time_and_is_plain(experiment):
    before = experiment.state_dict()
    run = experiment.create_run()
    created = run.state_dict()
    run.start()
    running = run.state_dict()
    run.stop()
    ended = experiment.state_dict()

    assert before == {"run": ""}
    for state in (created, running, ended):
        assert list(state) == ["run"]
        assert json.loads(state["run"])["uuid"] == run.uuid
    assert len(json.loads(running["run"])["attempts"]) == 1


def test_a_state_from_before_the_first_run_changes_nothing(experiment):
    experiment.load_state_dict({"run": ""})

    with experiment.create_run() as run:
        assert run.attempt == 1


def test_a_rank_that_does_not_track_keeps_nothing_and_takes_what_the_main_one_kept(
    experiment, tmp_path, server
):
    with experiment.create_run() as run:
        state = experiment.state_dict()
    other = make_experiment(tmp_path / "here", server)
    with other.create_run(rank=1):
        assert other.state_dict() == {}
    assert other.state_dict() == {}

    restarted = make_experiment(tmp_path / "here", server)
    restarted.load_state_dict({})
    restarted.load_state_dict(state)
    with restarted.create_run(rank=1) as again:
        pass

    assert (again.id, again.uuid, again.attempt) == (run.id, run.uuid, 2)


def test_a_loaded_state_counts_once(experiment, tmp_path, server):
    with experiment.create_run("a") as run:
        state = run.state_dict()
    restarted = make_experiment(tmp_path / "here", server)
    restarted.load_state_dict(state)
    assert restarted.state_dict() == state

    with restarted.create_run() as again:
        pass
    with restarted.create_run() as new:
        pass

    assert again.id == "a"
    assert new.id != "a"


def test_a_started_run_refuses_a_state_and_says_why(experiment):
    with experiment.create_run("a") as run:
        state = run.state_dict()
        with pytest.raises(RunStateError, match=r"'a' has started, so it can load no"):
            run.load_state_dict(state)
        with pytest.raises(RunStateError, match=r"'a' has started, so 'Digits' can"):
            experiment.load_state_dict(state)


def test_a_created_run_takes_its_own_state_alone(experiment):
    with experiment.create_run("a") as first:
        state = first.state_dict()
    resumed = experiment.create_run("a", resume=True)
    resumed.load_state_dict(state)
    other = experiment.create_run("b")

    with pytest.raises(RunStateError, match="is of run 'a', and this is run 'b'"):
        other.load_state_dict(state)


@pytest.mark.parametrize(
    "state",
    [
        {"other": ""},
        {"run": None},
        {"run": "text"},
        {"run": "{}"},
        None,
        {"run": "[1]"},
    ],
)
def test_what_is_no_state_is_refused(experiment, state):
    with pytest.raises(RecordError, match="no state of a run"):
        experiment.load_state_dict(state)


def test_a_state_of_another_experiment_is_refused(experiment, tmp_path, server):
    with experiment.create_run() as run:
        state = run.state_dict()

    with pytest.raises(RecordError, match="is of experiment 'Digits', and this one"):
        make_experiment(tmp_path, server, "Letters").load_state_dict(state)


def test_a_state_of_a_newer_version_is_refused(experiment):
    with experiment.create_run() as run:
        content = json.loads(run.state_dict()["run"])
    content["version"] = 99

    with pytest.raises(RecordError, match="version 99"):
        experiment.load_state_dict({"run": json.dumps(content)})


def test_another_run_of_that_id_is_not_mistaken_for_it(experiment, tmp_path, server):
    with experiment.create_run("a") as run:
        state = run.state_dict()
    elsewhere = make_experiment(tmp_path / "there", server)
    with elsewhere.create_run("a"):
        pass
    elsewhere.load_state_dict(state)

    with pytest.raises(RunExistsError, match="not the one of the checkpoint"):
        elsewhere.create_run()


@pytest.mark.torch
@pytest.mark.filterwarnings(NO_DIST)  # as the test wants it
@pytest.mark.parametrize("stateful", ["experiment", "run"])
def test_torch_distributed_checkpoint_keeps_the_run(
    experiment, tmp_path, server, stateful
):
    import torch
    import torch.distributed.checkpoint as dcp

    model = torch.nn.Linear(2, 2)
    with experiment.create_run() as run:
        run.log({"loss": 2.0}, step=10)
        saved = {"experiment": experiment, "run": run}[stateful]
        dcp.save(
            {"model": model.state_dict(), "tracking": saved},
            checkpoint_id=tmp_path / "checkpoint",
            no_dist=True,
        )
    restarted = make_experiment(tmp_path / "here", server)

    dcp.load(
        {"model": model.state_dict(), "tracking": restarted},
        checkpoint_id=tmp_path / "checkpoint",
        no_dist=True,
    )
    with restarted.create_run() as again:
        again.log({"loss": 1.0})

    assert (again.id, again.attempt) == (run.id, 2)
    assert [step for step, _ in next(iter(server.values()))] == [10, 11]
