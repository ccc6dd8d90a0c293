"""Files and models that are logged: fingerprints, versions, formats."""

from __future__ import annotations

import hashlib
import threading

import numpy as np
import pytest

from drytrack.core.exceptions import ArtifactError
from drytrack.core.experiment import Experiment
from drytrack.core.log_events import ArtifactEvent, SaveModelEvent

pytestmark = pytest.mark.usefixtures("no_default_trackers")


def artifacts(recorder):
    return [event for event in recorder.events if isinstance(event, ArtifactEvent)]


def test_a_file_is_logged_with_its_digest(run, recorder, tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"12345")

    run.log_artifact(path, artifact_path="models")

    (event,) = artifacts(recorder)
    assert (event.name, event.path, event.kind) == ("weights.bin", path, "file")
    assert event.artifact_path == "models"
    assert event.metadata == {
        "sha256": hashlib.sha256(b"12345").hexdigest(),
        "bytes": 5,
    }


def test_a_relative_path_is_logged_as_an_absolute_one(run, recorder, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"1")

    run.log_artifact("weights.bin")

    assert artifacts(recorder)[0].path == tmp_path / "weights.bin"


def test_the_digest_of_a_folder_tells_its_files_and_their_names(
    run, recorder, tmp_path
):
    for name in ("one", "two", "three"):
        (tmp_path / name / "sub").mkdir(parents=True)
    (tmp_path / "one" / "sub" / "a").write_bytes(b"1")
    (tmp_path / "two" / "sub" / "a").write_bytes(b"1")
    (tmp_path / "three" / "sub" / "b").write_bytes(b"1")

    run.log_artifacts({name: tmp_path / name for name in ("one", "two", "three")})

    one, two, three = artifacts(recorder)
    assert (one.name, one.kind, one.metadata["files"]) == ("one", "folder", 1)
    assert one.metadata["sha256"] == two.metadata["sha256"]
    assert one.metadata["sha256"] != three.metadata["sha256"]


def test_of_several_artifacts_one_that_is_missing_refuses_all(run, recorder, tmp_path):
    (tmp_path / "there").write_bytes(b"1")

    with pytest.raises(ArtifactError, match=r"missing' does not exist .*full path"):
        run.log_artifacts({"a": tmp_path / "there", "b": tmp_path / "missing"})

    assert artifacts(recorder) == []


def test_a_missing_artifact_is_caught_as_an_os_error(run):
    with pytest.raises(OSError, match="does not exist"):
        run.log_artifact("missing")


def test_an_artifact_that_is_being_written_is_refused(run, tmp_path):
    path = tmp_path / "growing"
    path.write_bytes(bytes(50_000_000))
    stop = threading.Event()

    def write():
        with path.open("ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"1")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with pytest.raises(ArtifactError, match="is being written"):
            run.log_artifact(path)
    finally:
        stop.set()
        thread.join()


def test_each_model_that_is_saved_is_a_version(run, recorder):
    first = run.log_model({"w": np.ones(3), "deep": {"b": np.zeros(2)}}, "net/a")
    second = run.log_model({"w": np.zeros(3)}, "net/a", epoch=4)

    assert first != second
    loaded = np.load(first)
    assert sorted(loaded) == ["deep/b", "w"]
    assert loaded["w"].tolist() == [1.0, 1.0, 1.0]
    one, two = artifacts(recorder)
    assert (one.kind, one.metadata["version"], two.metadata["version"]) == (
        "model",
        1,
        2,
    )
    assert one.metadata["sha256"] == hashlib.sha256(first.read_bytes()).hexdigest()
    saves = [event for event in recorder.events if isinstance(event, SaveModelEvent)]
    assert [(e.model_name, e.location, e.epoch) for e in saves] == [
        ("net/a", first, None),
        ("net/a", second, 4),
    ]


def test_a_model_that_was_saved_is_logged_where_it_is(run, recorder, tmp_path):
    path = tmp_path / "net.pt"
    path.write_bytes(b"1")

    assert run.log_model(path, "net") == path
    assert artifacts(recorder)[0].metadata["format"] == "file"


def test_a_model_of_an_unknown_kind_is_refused_with_the_way_out(run, recorder):
    with pytest.raises(ArtifactError, match=r"how to save a builtins\.object.*path"):
        run.log_model(object(), "net")

    assert artifacts(recorder) == []


@pytest.mark.torch
def test_a_torch_module_is_saved_as_its_state(run, recorder):
    import torch

    module = torch.nn.Linear(2, 3)

    path = run.log_model(module, "net", metadata={"accuracy": 0.9})

    state = torch.load(path, weights_only=True)
    assert torch.equal(state["weight"], module.weight)
    metadata = artifacts(recorder)[0].metadata
    assert metadata["format"] == "torch state_dict"
    assert metadata["accuracy"] == 0.9


def test_where_nobody_keeps_it_no_model_is_saved(tmp_path):
    with Experiment(par_dir=tmp_path / "none").create_run(record=False) as run:
        assert run.log_model({"w": np.ones(3)}, "net") is None

    assert not (tmp_path / "none").exists()
