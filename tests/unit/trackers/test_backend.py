"""The base of trackers that drive other tools, driven by real runs."""

from __future__ import annotations

import json
import logging
import math
import time

import numpy as np
import pytest
from matplotlib.figure import Figure

from drytrack.core import log_events as events
from drytrack.core.exceptions import BackendError, MissingDependencyError
from drytrack.core.experiment import Experiment
from drytrack.loops import TrainingLoop
from drytrack.replay import replay
from drytrack.testing import TrackerContract
from drytrack.trackers._run_info import thaw
from drytrack.trackers.base import (
    Backend,
    NameRule,
    flatten,
    import_backend,
)


class LineBackend(Backend):
    """The least that a backend is: one line of JSON for each call."""

    name = "lines"
    notify = Backend.notify.extend()
    _file = None

    def open(self, info):
        self.run_dir.mkdir(parents=True, exist_ok=True)
        path = self.run_dir / "lines.jsonl"
        self.info = info
        self.state["run_id"] = info.run_id
        self._file = self.enter_context(path.open("a", encoding="utf-8"))

    def log_metrics(self, metrics, at):
        self._write("metrics", {"values": metrics, **at._asdict()})

    def finish(self, status, error):
        self._write("finish", {"status": status})
        self._file.close()

    def flush(self):
        if self._file is not None and not self._file.closed:
            self._file.flush()

    @property
    def native(self):
        return self._file

    def _write(self, kind, content):
        self._file.write(json.dumps({"kind": kind, **content}) + "\n")
        self._file.flush()


class FullBackend(LineBackend):
    """Takes everything."""

    name = "full"
    notify = LineBackend.notify.extend()

    def log_params(self, params):
        self._write("params", {"values": flatten(params)})

    def log_image(self, name, image, at, caption):
        content = {"name": name, "format": image.format, "bytes": len(image.data)}
        self._write("image", {**content, "step": at.step, "caption": caption})

    def log_table(self, name, columns, rows, at):
        self._write("table", {"name": name, "columns": columns, "rows": rows})

    def log_text(self, name, text, at):
        self._write("text", {"name": name, "text": text})

    def log_histogram(self, name, counts, bin_edges, at):
        self._write("histogram", {"name": name, "counts": counts, "edges": bin_edges})

    def log_artifact(self, name, path, *, kind, metadata, artifact_path):
        self._write("artifact", {"name": name, "what": kind, "at": artifact_path})

    def log_summary(self, summary):
        self._write("summary", {"values": summary})


class FlakyBackend(LineBackend):
    """Refuses what it is told to, as often as it is told to."""

    name = "flaky"
    notify = LineBackend.notify.extend()

    def __init__(self, par_dir=None, *, refuses=None, fails_flush=0):
        super().__init__(par_dir)
        self.refuses = refuses or {}
        self.fails_flush = fails_flush

    def log_metrics(self, metrics, at):
        if self.refuses.get(at.step, 0):
            self.refuses[at.step] -= 1
            raise OSError("no route to host")
        super().log_metrics(metrics, at)

    def flush(self):
        super().flush()
        if self.fails_flush:
            self.fails_flush -= 1
            raise OSError("no route to host")


class HalfwayBackend(LineBackend):
    """Writes one metric after the other, and refuses the second one once."""

    name = "halfway"
    notify = LineBackend.notify.extend()
    has_refused = False

    def log_metrics(self, metrics, at):
        for metric, value in self._unwritten(metrics):
            if metric == "b" and not self.has_refused:
                self.has_refused = True
                raise OSError("no route to host")
            super().log_metrics({metric: value}, at)


class KnowingBackend(LineBackend):
    """Keeps the number of each event, and so can be asked what it has."""

    name = "knowing"
    notify = LineBackend.notify.extend()

    def log_metrics(self, metrics, at):
        self._write("metrics", {"step": at.step, "seq": self.seq})

    def last_seq(self):
        return max(
            (line.get("seq", 0) for line in lines_of(self, self.run_dir)), default=0
        )


pytestmark = pytest.mark.usefixtures("no_default_trackers")


@pytest.fixture
def experiment(tmp_path):
    config = {"lr": 0.1, "deep": {"layers": [1, 2]}}
    return Experiment(config, name="Digits", par_dir=tmp_path, tags=["mlp"])


def lines_of(backend, run_dir):
    path = run_dir / "lines.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def watched(experiment, backend):
    experiment.trackers.subscribe(backend)
    return experiment.create_run("a")


def read(experiment, backend, kind="metrics"):
    folder = experiment.par_dir / backend.name / experiment.name / "a"
    return [line for line in lines_of(backend, folder) if line["kind"] == kind]


# -- the least -----------------------------------------------------------------------


def test_three_methods_suffice(experiment):
    backend = LineBackend()

    with watched(experiment, backend) as run:
        run.log({"loss": 2.0}, step=3)
        run.flush()

    (line,) = read(experiment, backend)
    assert (line["values"], line["step"], line["axis"]) == ({"loss": 2.0}, 3, "step")
    assert (line["attempt"], line["context"]) == (1, {})
    assert read(experiment, backend, "finish") == [
        {"kind": "finish", "status": "completed"}
    ]


def test_what_has_no_place_is_counted_and_said_once(experiment, caplog):
    with (
        caplog.at_level(logging.WARNING, "drytrack"),
        watched(experiment, LineBackend()) as run,
    ):
        run.log_image("picture", np.zeros((2, 2)))
        run.log_image("picture", np.zeros((2, 2)))
        run.log_text("note", "good")
        run.summary["best"] = 1

    (said,) = [r.getMessage() for r in caplog.records if "no place" in r.getMessage()]
    for part in ("'lines'", "2 parameters", "2 images", "1 texts", "journal"):
        assert part in said


def test_a_backend_is_told_of_the_run(experiment):
    backend = LineBackend()

    with watched(experiment, backend) as run:
        assert run.get_backend("lines") is backend
        info = backend.info

    assert (info.experiment, info.run_id, info.uuid) == ("Digits", "a", run.uuid)
    assert (info.attempt, info.resumed) == (1, False)
    assert info.config == {"lr": 0.1, "deep": {"layers": [1, 2]}}
    assert info.tags == ["mlp"]
    assert info.environment["rank"]["world_size"] == 1
    assert info.run_dir == experiment.par_dir / "lines" / "Digits" / "a"


def test_the_tools_own_object_is_at_hand(experiment):
    with watched(experiment, LineBackend()) as run:
        assert run.get_backend("lines").native.name.endswith("lines.jsonl")


def test_what_a_backend_lacks_is_an_error_that_says_so(experiment):
    backend = LineBackend()

    assert backend.url is None
    with pytest.raises(BackendError, match="LineBackend has no dashboard"):
        backend.launch_dashboard(port=6006)
    with pytest.raises(BackendError, match=r"run\.watch\(model\)"):
        backend.watch(object())


def test_a_missing_package_is_named_with_its_extra():
    with pytest.raises(
        MissingDependencyError,
        match=r'Nowhere needs the no_such package: pip install "drytrack\[nowhere\]"',
    ):
        import_backend("no_such.module", extra="nowhere", tracker="Nowhere")


# -- everything ----------------------------------------------------------------------


def test_each_event_becomes_its_call(experiment, tmp_path):
    backend = FullBackend()
    (tmp_path / "data").write_bytes(b"1")

    with watched(experiment, backend) as run:
        run.log_params({"optimizer": {"name": "adam"}})
        run.log_image("picture", np.zeros((2, 2)), caption="black")
        run.log_table("table", ["a"], [[1]])
        run.log_text("note", "good")
        run.bins("weights", counts=[1], edges=[0, 1])
        run.log_artifact(tmp_path / "data", artifact_path="inputs")
        run.log_model({"w": np.ones(2)}, "net")
        run.summary["best"] = 1

    def of(kind):
        return read(experiment, backend, kind)

    assert [line["values"] for line in of("params")] == [
        {"lr": 0.1, "deep/layers": [1, 2]},
        {"optimizer/name": "adam"},
    ]
    assert of("image")[0]["format"] == "png"
    assert of("image")[0]["caption"] == "black"
    assert of("table")[0]["rows"] == [[1]]
    assert of("text")[0]["text"] == "good"
    assert of("histogram")[0]["counts"] == [1.0]
    assert [(a["name"], a["what"], a["at"]) for a in of("artifact")] == [
        ("data", "file", "inputs"),
        ("net", "model", None),
    ]
    assert of("summary")[0]["values"] == {"best": 1}


def test_a_figure_that_is_a_picture_goes_where_images_go(experiment):
    backend = FullBackend()
    figure = Figure()

    with watched(experiment, backend) as run:
        run.log_figure("curve", figure)

    assert read(experiment, backend, "image")[0]["name"] == "curve"


@pytest.mark.parametrize("config", [None, 3, "text", [1, 2]])
def test_a_configuration_of_any_shape_is_taken(tmp_path, config):
    experiment = Experiment(config, name="Digits", par_dir=tmp_path)
    backend = FullBackend()

    with watched(experiment, backend):
        pass

    found = [line["values"] for line in read(experiment, backend, "params")]
    assert found == ([] if config is None else [{"config": config}])


# -- names ---------------------------------------------------------------------------


def names(experiment, backend):
    lines = read(experiment, backend)
    return [(name, line["axis"]) for line in lines for name in line["values"]]


def test_steps_and_epochs_of_a_metric_have_names_of_their_own(experiment):
    backend = LineBackend()

    with watched(experiment, backend) as run:
        loop = TrainingLoop(run.register_model(object(), "mlp"), name="trainer")
        for _ in loop.epochs(1):
            events.StepMetricEvent("trainer", 1, {"loss": 2.0}, model_name="mlp")
            loop.log_metrics(loss=1.0)
        run.log({"loss": 3.0})
        run.log({"loss": 4.0}, axis="epoch")
        run.log({"memory": 4.0}, axis="seconds")

    assert names(experiment, backend) == [
        ("trainer/loss_step", "step"),
        ("trainer/loss", "epoch"),
        ("loss", "step"),
        ("loss_epoch", "epoch"),
        ("memory", "seconds"),
    ]


def test_further_models_have_their_name_in_front_also_after_a_resume(experiment):
    backend = LineBackend()
    with watched(experiment, backend) as run:
        run.register_model(object(), "first")
        run.register_model(object(), "second")
        events.MetricEvent("second", "trainer", 1, {"loss": 1.0})
        events.MetricEvent("first", "trainer", 1, {"loss": 1.0})
    with experiment.create_run("a", resume=True) as run:
        run.register_model(object(), "second")
        events.MetricEvent("second", "trainer", 2, {"loss": 1.0})

    assert [name for name, _ in names(experiment, backend)] == [
        "second/trainer/loss",
        "trainer/loss",
        "second/trainer/loss",
    ]


def test_contexts_are_a_part_of_the_name(experiment):
    backend = LineBackend()

    with watched(experiment, backend) as run:
        run.log({"loss": 1.0}, context={"split": "val"})
        run.log({"loss": 1.0}, context={"fold": 2, "split": "val"})

    assert [name for name, _ in names(experiment, backend)] == [
        "val/loss",
        "loss [fold=2, split=val]",
    ]


def test_a_backend_that_keeps_contexts_gets_them(experiment):
    class Keeping(LineBackend):
        keeps_context = True
        notify = LineBackend.notify.extend()

    backend = Keeping()

    with watched(experiment, backend) as run:
        run.log({"loss": 1.0}, context={"split": "val"})

    (line,) = read(experiment, backend)
    assert (line["values"], line["context"]) == ({"loss": 1.0}, {"split": "val"})


def test_two_series_never_share_a_name(experiment):
    backend = LineBackend()

    with watched(experiment, backend) as run:
        run.log({"val/loss": 1.0})
        run.log({"loss": 2.0}, context={"split": "val"})
        run.log({"loss": 3.0}, context={"split": "val"})

    found = [name for name, _ in names(experiment, backend)]
    assert found[0] == "val/loss"
    assert found[1] == found[2] != "val/loss"


def test_learning_rates_are_metrics_of_the_epochs(experiment):
    backend = LineBackend()

    with watched(experiment, backend):
        events.LearningRateEvent("mlp", "trainer", 1, 0.1)
        events.LearningRateEvent("mlp", "trainer", 2, [0.1, 0.2])
        events.LearningRateEvent("mlp", "trainer", 3)

    assert names(experiment, backend) == [
        ("trainer/lr", "epoch"),
        ("trainer/lr/0", "epoch"),
        ("trainer/lr/1", "epoch"),
    ]


def test_names_pass_the_rule_of_the_backend(experiment):
    class Narrow(LineBackend):
        rule = NameRule(r"[a-z_0-9]")
        notify = LineBackend.notify.extend()

    backend = Narrow()

    with watched(experiment, backend) as run:
        run.log({"train/loss": 1.0})

    assert names(experiment, backend) == [("train_x2f_loss", "step")]
    assert Narrow.rule.restore("train_x2f_loss") == "train/loss"


# -- again ---------------------------------------------------------------------------


def steps(experiment, backend):
    return [line["step"] for line in read(experiment, backend)]


@pytest.mark.filterwarnings("ignore:Tracker 'flaky'")  # it fails on purpose
def test_what_was_taken_is_not_given_again_after_a_failed_flush(experiment):
    backend = FlakyBackend(fails_flush=1)

    with watched(experiment, backend) as run:
        for step in range(5):
            run.log({"loss": 1.0}, step=step)
        run.flush()

    assert steps(experiment, backend) == [0, 1, 2, 3, 4]


@pytest.mark.filterwarnings("ignore:Tracker 'flaky'")  # it fails on purpose
def test_what_failed_is_given_again_behind_what_was_taken(experiment):
    # Six refusals of three events: a suspension, with events taken before it.
    backend = FlakyBackend(refuses={1: 2, 2: 2, 3: 2})

    with watched(experiment, backend) as run:
        for step in range(6):
            run.log({"loss": 1.0}, step=step)

    assert sorted(steps(experiment, backend)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.filterwarnings("ignore:Tracker 'halfway'")  # it fails on purpose
def test_what_a_failed_try_has_written_is_not_written_again(experiment):
    backend = HalfwayBackend()

    with watched(experiment, backend) as run:
        run.log({"a": 1.0, "b": 2.0, "c": 3.0})
        run.log({"a": 1.0})

    assert backend.has_refused
    assert [name for name, _ in names(experiment, backend)] == ["a", "b", "c", "a"]


def test_what_the_tool_says_that_it_has_is_kept_from_it(experiment):
    with watched(experiment, KnowingBackend()) as run:
        for step in range(3):
            run.log({"loss": 1.0}, step=step)
    backend = KnowingBackend()

    replay(run, backend)

    assert steps(experiment, backend) == [0, 1, 2]


def test_a_resumed_run_finds_the_state_again(experiment):
    backend = LineBackend()
    with watched(experiment, backend):
        pass
    second = LineBackend()
    fresh = Experiment(name="Digits", par_dir=experiment.par_dir)
    fresh.trackers.subscribe(second)

    with fresh.create_run("a", resume=True) as run:
        assert run.get_backend("lines") is second
        assert second.state["run_id"] == "a"
        assert second.info.resumed


def test_a_replay_gives_a_new_backend_everything(experiment, tmp_path):
    with experiment.create_run("a") as run:
        for step in range(3):
            run.log({"loss": 1.0}, step=step)
    backend = LineBackend()

    replay(run, backend)

    assert steps(experiment, backend) == [0, 1, 2]


def test_a_backend_that_is_removed_finishes_its_run(experiment):
    backend = LineBackend()

    with watched(experiment, backend) as run:
        assert run.get_backend("lines") is backend
        experiment.trackers.remove("lines")
        run.flush()
        while backend.is_open:
            time.sleep(0.01)

    assert read(experiment, backend, "finish") == [
        {"kind": "finish", "status": "interrupted"}
    ]


@pytest.mark.parametrize(
    ("nested", "flat"),
    [
        ({}, {}),
        ({"a": {"b": 1, "c": {}}}, {"a/b": 1, "a/c": {}}),
        ({"a": [1, 2], "b": [{"c": 1}]}, {"a": [1, 2], "b/0/c": 1}),
    ],
)
def test_nested_parameters_are_flattened(nested, flat):
    assert flatten(nested) == flat


def test_what_an_event_has_frozen_becomes_plain_data():
    params = {"deep": [{"rate": math.inf}], "rate": math.nan}
    frozen = events.ParamsEvent.unpublished(params).params

    plain = thaw(frozen, odd_floats=False)

    assert plain == {"deep": [{"rate": "inf"}], "rate": "nan"}
    assert [type(plain), type(plain["deep"])] == [dict, list]
    assert thaw(frozen)["deep"] == [{"rate": math.inf}]


class TestLineBackend(TrackerContract):
    def make_tracker(self, tmp_path):
        return LineBackend(tmp_path)
