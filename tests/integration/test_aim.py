"""Aim's own reader on what the tracker writes to a repository."""

from __future__ import annotations

import contextlib
import gc
import os

import numpy as np
import pytest
from backend_cases import (
    UNTIDY,
    BackendCases,
    backend,
    count_metrics,
    experiment_with,
    train,
    train_and_fail,
)

from drytrack.core import log_events
from drytrack.core.exceptions import DeliveryWarning, TrackerExceptionWarning
from drytrack.replay import replay
from drytrack.trackers.aim import Aim

pytestmark = [
    *backend("aim", noise=UNTIDY),
    pytest.mark.timeout(600),  # it starts processes, on a machine that may be busy
]


@contextlib.contextmanager
def opened(tmp_path, run_id="run"):
    """Give the run as Aim reads it, from an index that is up to date."""
    import aim
    from aim.sdk.index_manager import RepoIndexManager

    path = str(tmp_path / "aim")
    aim.Repo._all_run_hashes.cache_clear()  # it is remembered for half a second
    writing = aim.Repo(path)
    for run_hash in writing.list_all_runs():
        RepoIndexManager(writing).index(run_hash)
    del writing
    gc.collect()
    repo = aim.Repo(path)
    found = [run for run in repo.iter_runs() if run.name == run_id]
    assert len(found) == 1, f"{len(found)} runs are called {run_id!r}"
    yield found[0]


def points_in(run, name, context=None):
    """Return step → value of a metric."""
    for metric in run.metrics():
        if metric.name == name and metric.context.to_dict() == (context or {}):
            rows = metric.dataframe()
            return dict(sorted(zip(rows["step"], rows["value"], strict=True)))
    return {}


def first_of(get_sequence, name):
    from aim.storage.context import Context

    return get_sequence(name, Context({})).data.values_list()[0][0]


class TestAim(BackendCases):
    tracker_class = Aim
    end_forked = os._exit  # as multiprocessing does; Aim's own exit handler would hang

    def points(self, place, name, run_id="run", experiment="Vision"):
        with opened(place, run_id) as run:
            return list(points_in(run, name).items())

    def test_a_resumed_run_repeats_nothing(self, tmp_path):
        super().test_a_resumed_run_repeats_nothing(tmp_path)
        train(experiment_with(Aim(), tmp_path), [3, 4], resume=True)

        self.check_losses(tmp_path, [1, 2, 3, 4])
        with opened(tmp_path) as run:
            assert run["drytrack", "attempt"] == 3

    def test_a_replay_writes_nothing_twice(self, tmp_path):
        super().test_a_replay_writes_nothing_twice(tmp_path)
        for place in (tmp_path, tmp_path / "copy"):
            with opened(place) as found:
                assert found["drytrack", "seq"] > 0


def test_metrics_contexts_params_and_tags_are_read_back(tmp_path):
    config = {"lr": 0.1, "net": {"width": 8}, "api_key": "s3cret-value"}
    experiment = experiment_with(
        Aim(par_dir=tmp_path), tmp_path, config, tags=["mlp"], description="A note."
    )

    with experiment.create_run("run"):
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.5})
        for split, loss in (("val", 0.7), ("test", 0.8)):
            log_events.StepMetricEvent("train", 10, {"loss": loss}, {"split": split})
        log_events.ParamsEvent({"lr": 0.2})
        log_events.SummaryEvent({"best": 0.9})

    with opened(tmp_path) as run:
        assert points_in(run, "train/loss") == {1: 0.5}
        assert points_in(run, "train/loss_step", {"split": "val"}) == {10: 0.7}
        assert points_in(run, "train/loss_step", {"split": "test"}) == {10: 0.8}
        assert run["hparams", "lr"] == 0.2
        assert run["hparams", "net"] == {"width": 8}
        assert run["hparams", "api_key"] == "***"
        assert run["summary", "best"] == 0.9
        assert run["status"] == "completed"
        assert run.tags == ["mlp"]
        assert run.description == "A note."
        assert run.experiment == "Vision"
        assert run.end_time is not None
    stored = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"s3cret-value" not in stored


def test_names_that_are_aims_own_are_mapped_and_mapped_back(tmp_path):
    with experiment_with(Aim(par_dir=tmp_path), tmp_path).create_run("run") as run:
        run.log({"__system__cpu": 0.5, "_ä/ö: 100 %": 1.0}, step=1)

    with opened(tmp_path) as found:
        names = {metric.name for metric in found.metrics()}
    assert not any(name.startswith("__") for name in names)
    assert {Aim.rule.restore(name) for name in names} == {
        "__system__cpu",
        "_ä/ö: 100 %",
    }


def test_images_distributions_and_texts_are_read_back(tmp_path):
    pixels = np.full((4, 4, 3), 7, dtype=np.uint8)
    experiment = experiment_with(Aim(par_dir=tmp_path), tmp_path)

    with experiment.create_run("run"):
        log_events.ImageEvent("train", "sample", 1, pixels, caption="grey")
        log_events.HistogramEvent("train", "even", 2, [1, 2], [0.0, 0.5, 1.0])
        log_events.HistogramEvent("train", "uneven", 2, [4, 4], [0.0, 1.0, 4.0])
        log_events.TextEvent("train", "note", 3, "done")
        log_events.TableEvent("train", "errors", 4, ["x"], [[1], [None]])

    with opened(tmp_path) as run:
        image = first_of(run.get_image_sequence, "train/sample")
        assert image.caption == "grey"
        assert np.asarray(image.to_pil_image())[0, 0].tolist() == [7, 7, 7]
        even = first_of(run.get_distribution_sequence, "train/even")
        assert even.weights.tolist() == [1, 2]
        uneven = first_of(run.get_distribution_sequence, "train/uneven")
        # Two bins of width 2: the first holds 4 and a third of 4.
        assert uneven.weights == pytest.approx([4 + 4 / 3, 8 / 3])
        assert list(uneven.range) == [0.0, 4.0]
        text = first_of(run.get_text_sequence, "train/note")
        assert text.data == "done"
        table = first_of(run.get_text_sequence, "train/errors")
        assert table.data == '{"x": 1}\n{"x": null}'


def test_artifacts_are_copied(weights, data, tmp_path):
    place = tmp_path / "a place"
    experiment = experiment_with(Aim(par_dir=place), tmp_path)

    with experiment.create_run("run"):
        log_events.ArtifactEvent("net", weights, "model", {"version": "2"})
        log_events.ArtifactEvent("digits", data, "dataset")

    copies = {p.name: p.read_bytes() for p in (place / "aim/artifacts").rglob("*.*")}
    assert copies == {"weights.bin": b"123", "a.txt": b"a"}
    with opened(place) as run:
        assert run["artifacts", "net"] == {"kind": "model", "version": "2"}


def test_what_aim_has_is_not_written_again(tmp_path):
    tracker = Aim(par_dir=tmp_path)
    with experiment_with(tracker, tmp_path).create_run("run") as run:
        log_events.MetricEvent("mlp", "train", 1, {"loss": 0.1})
        run.flush(60)
        tracker.native.track(0.9, name="train/loss", step=1, epoch=1, context={})

    replay(run.path, Aim(par_dir=tmp_path))

    with opened(tmp_path) as found:
        assert points_in(found, "train/loss") == {1: 0.9}


def test_the_error_of_a_failed_run_is_kept(tmp_path):
    train_and_fail(experiment_with(Aim(par_dir=tmp_path), tmp_path))

    with opened(tmp_path) as run:
        assert run["status"] == "failed"
        assert run["error", "message"] == "no data"


def test_a_server_that_is_away_costs_the_run_nothing(nobodys_address, tmp_path):
    tracker = Aim(f"aim://{nobodys_address}")

    with pytest.warns((TrackerExceptionWarning, DeliveryWarning)):
        run = train(experiment_with(tracker, tmp_path), [1, 2])

    assert count_metrics(run.path) == 2
    replay(run, Aim(par_dir=tmp_path))
    with opened(tmp_path) as found:
        assert points_in(found, "train/loss") == {1: 0.1, 2: 0.2}
