from __future__ import annotations

import datetime
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drytrack.core import log_events
from drytrack.core._history import AttemptCounter, series_name
from drytrack.core.exceptions import AccessOutsideScopeError
from drytrack.trackers.base import Dumper, MemoryMetrics, Series

NOW = datetime.datetime(2026, 11, 20, 23, 12, 1)


class NoteDumper(Dumper):
    folder_name = "notes"


def start(run_id="run", par_dir="store", **fields):
    return log_events.StartExperimentEvent.unpublished(
        {}, "Digits", NOW, run_id, par_dir=pathlib.Path(par_dir), **fields
    )


def metric(epoch, value=0.0, model="mlp", source="train", name="loss"):
    return log_events.MetricEvent.unpublished(model, source, epoch, {name: value})


def step_metric(step, value=0.0, model="mlp", **fields):
    return log_events.StepMetricEvent.unpublished(
        "train", step, {"loss": value}, model_name=model, **fields
    )


def load(epoch, model="mlp"):
    return log_events.LoadModelEvent.unpublished(model, "checkpoint", "file", epoch)


def watch(*events, tracker=None):
    tracker = tracker or MemoryMetrics()
    for event in (start(), *events):
        tracker.notify(event)
    return tracker


class TestDumper:
    @pytest.mark.parametrize(
        ("run_id", "parts"),
        [
            ("2026-11-20_23-12-01", ("2026-11-20", "23-12-01")),
            ("2026-11-20_23-12-01_2", ("2026-11-20", "23-12-01_2")),
            ("baseline", ("baseline",)),
            ("2026-11-20_23-12-01-again", ("2026-11-20_23-12-01-again",)),
        ],
    )
    def test_a_run_has_a_folder_by_its_id(self, tmp_path, run_id, parts):
        dumper = NoteDumper()

        dumper.notify(start(run_id, tmp_path))

        assert dumper.run_dir == tmp_path.joinpath("notes", "Digits", *parts)
        assert dumper.run_dir.is_dir()

    def test_its_own_par_dir_wins(self, tmp_path):
        dumper = NoteDumper(tmp_path / "mine")

        dumper.notify(start(par_dir=tmp_path))

        assert dumper.run_dir == tmp_path / "mine" / "notes" / "Digits" / "run"

    def test_a_relative_par_dir_stays_where_it_was(self, tmp_path, monkeypatch):
        dumper = NoteDumper("mine")
        (tmp_path / "elsewhere").mkdir()

        monkeypatch.chdir(tmp_path / "elsewhere")
        dumper.notify(start())

        assert dumper.run_dir == tmp_path / "mine" / "notes" / "Digits" / "run"

    def test_outside_of_a_run_there_is_no_folder(self):
        with pytest.raises(AccessOutsideScopeError, match="watches no run"):
            _ = NoteDumper().run_dir

    def test_finding_a_folder_does_not_create_it(self, tmp_path):
        folder = NoteDumper().find_run_dir(start(par_dir=tmp_path))

        assert folder.parent.parent.parent == tmp_path
        assert list(tmp_path.iterdir()) == []


class TestMemoryMetrics:
    def test_repeating_an_epoch_within_an_attempt_keeps_the_newest_value(self):
        memory = watch(metric(1, 0.1), metric(2, 0.2), metric(1, 0.3))

        assert memory.load_metrics("mlp") == {
            "train": {"loss": Series([1, 2], [0.3, 0.2])}
        }

    def test_a_resumed_run_shows_the_newest_attempt_from_its_first_epoch(self):
        memory = watch(*(metric(epoch, 0.1) for epoch in range(1, 6)))

        memory.notify(start(resumed=True, attempt=2))
        memory.notify(metric(3, 0.2))

        assert memory.load_metrics("mlp")["train"]["loss"] == Series(
            [1, 2, 3], [0.1, 0.1, 0.2]
        )

    def test_all_sources_of_a_model_share_the_limit(self):
        memory = watch(metric(4, 0.1), metric(4, 0.1, source="test"))

        memory.notify(start(resumed=True, attempt=2))
        memory.notify(metric(3, 0.2))

        assert list(memory.load_metrics("mlp")) == ["train"]

    def test_models_and_axes_do_not_share_the_limit(self):
        memory = watch(metric(4, 0.1), metric(4, 0.1, model="cnn"), step_metric(400))

        memory.notify(start(resumed=True, attempt=2))
        memory.notify(metric(3, 0.2))

        assert memory.load_metrics("cnn")["train"]["loss"].steps == [4]
        assert memory.load_metrics("mlp", axis="step")["train"]["loss"].steps == [400]

    def test_loading_an_earlier_epoch_begins_an_attempt(self):
        memory = watch(*(metric(epoch, 0.1) for epoch in range(1, 6)))

        memory.notify(load(2))
        memory.notify(metric(3, 0.2))

        assert memory.load_metrics("mlp")["train"]["loss"] == Series(
            [1, 2, 3], [0.1, 0.1, 0.2]
        )

    def test_loading_the_latest_epoch_begins_none(self):
        memory = watch(metric(5, 0.1), load(5), metric(4, 0.2))

        assert memory.load_metrics("mlp")["train"]["loss"].steps == [4, 5]

    def test_an_epoch_without_metrics_counts_for_a_rewind(self):
        memory = watch(
            step_metric(50, 0.1),
            step_metric(60, 0.1),
            log_events.StartEpochEvent.unpublished("train", "mlp", 6),
            load(5),
            step_metric(55, 0.2),
        )

        loss = memory.load_metrics("mlp", axis="step")["train"]["loss"]
        assert loss == Series([50, 55], [0.1, 0.2])

    def test_a_rewind_of_one_model_leaves_the_other_alone(self):
        memory = watch(metric(5, 0.1), metric(5, 0.1, model="cnn"), load(1), metric(2))

        assert memory.load_metrics("cnn")["train"]["loss"].steps == [5]
        assert memory.load_metrics("mlp")["train"]["loss"].steps == [2]

    def test_the_last_epoch_can_be_chosen(self):
        memory = watch(*(metric(epoch) for epoch in range(5)))

        assert memory.load_metrics("mlp", 2)["train"]["loss"].steps == [0, 1, 2]
        assert memory.load_metrics("mlp", 0)["train"]["loss"].steps == [0]

    def test_contexts_and_axes_are_series_of_their_own(self):
        memory = watch(
            step_metric(1, context={"split": "val"}),
            step_metric(1),
            step_metric(1, axis="samples"),
        )

        assert list(memory.load_metrics("mlp", axis="step")["train"]) == [
            "loss [split=val]",
            "loss",
        ]
        assert list(memory.load_metrics("mlp", axis="samples")["train"]) == ["loss"]

    def test_a_new_run_forgets_the_last_one(self):
        memory = watch(metric(1))

        memory.notify(start("second"))

        assert memory.load_metrics("mlp") == {}

    def test_another_run_that_is_resumed_does_not_get_this_ones_metrics(self):
        memory = watch(metric(1))

        memory.notify(start("another", resumed=True, attempt=2))

        assert memory.load_metrics("mlp") == {}

    def test_what_is_unknown_is_empty(self):
        memory = watch(metric(1))

        assert memory.load_metrics("cnn") == {}
        assert memory.load_metrics("mlp", axis="step") == {}


def test_whoever_comes_with_a_new_process_counts_as_those_who_were_there():
    earlier = [start(), metric(5), load(2), metric(3), metric(9)]
    later = [start(resumed=True, attempt=2), load(4), metric(5)]
    there, new = AttemptCounter(), AttemptCounter()

    for event in [*earlier, *later]:
        there.see(event)
    for event in later:
        new.see(event)

    assert there.of(metric(1), "mlp") == new.of(metric(1), "mlp") == (2, 0)
    assert there.of(metric(1), "") == new.of(metric(1), "") == (2, 0)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=8), max_size=3))
def test_the_name_of_a_series_is_one_line(context):
    name = series_name("loss", context)

    assert len(name.splitlines()) == 1
    assert name.encode()
