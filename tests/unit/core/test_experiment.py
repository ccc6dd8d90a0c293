"""Experiments, and what create_run accepts, resumes and refuses."""

from __future__ import annotations

import contextvars
import dataclasses
import errno
import gc
import json
import os
import pathlib
import sys
import threading
import time
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drytrack.core.exceptions import (
    AccessOutsideScopeError,
    ConfigurationError,
    DrytrackError,
    InvalidNameError,
    RecordError,
    RecordWarning,
    RunExistsError,
    RunHeldError,
    RunNotFoundError,
    StorageError,
)
from drytrack.core.experiment import Experiment
from drytrack.core.log_events import StartExperimentEvent
from drytrack.testing import capture_events

pytestmark = pytest.mark.usefixtures("no_default_trackers")

REFUSED = [
    "../../x",
    "..",
    ".",
    "",
    " ",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:x",
    "C:\\x",
    "CON",
    "con.txt",
    "NUL",
    "COM1",
    "trailing.",
    "trailing ",
    " leading",
    "x" * 300,
    "é" * 200,
    "a\nb",
    "a\0b",
    "a\x1bb",
    "a\u2028b",
    "\ud800",
    "what?",
    7,
    b"bytes",
]


@pytest.fixture
def experiment(tmp_path):
    return Experiment({"lr": 0.1}, name="Digits", par_dir=tmp_path / "store")


def finish(run):
    with run:
        pass
    return run


def record_of(run):
    return json.loads((run.path / "record.json").read_text())


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


# -- ids and names ---------------------------------------------------------------


@pytest.mark.parametrize("run_id", REFUSED, ids=lambda value: ascii(value)[:24])
@pytest.mark.parametrize("resume", [False, True, "auto"])
def test_a_run_id_that_is_no_folder_name_is_refused_without_trace(
    experiment, tmp_path, run_id, resume
):
    with pytest.raises(InvalidNameError, match="run id"):
        experiment.create_run(run_id, resume=resume)

    assert files_below(tmp_path) == set()


@pytest.mark.parametrize("name", REFUSED, ids=lambda value: ascii(value)[:24])
def test_an_experiment_name_that_is_no_folder_name_is_refused(tmp_path, name):
    with pytest.raises(InvalidNameError, match="experiment name"):
        Experiment(name=name, par_dir=tmp_path)

    assert files_below(tmp_path) == set()


@given(run_id=st.text(max_size=40))
def test_no_run_id_leaves_the_folder_of_its_experiment(run_id, tmp_path_factory):
    top = tmp_path_factory.mktemp("top")
    experiment = Experiment(name="E", par_dir=top / "store")
    try:
        run = finish(experiment.create_run(run_id))
    except InvalidNameError:
        assert files_below(top) == set()
    else:
        assert run.path == top / "store" / ".drytrack" / "E" / run_id
        assert {path.name for path in top.iterdir()} == {"store"}
        assert {p.name for p in run.path.parent.iterdir()} == {run_id}


def test_unusual_but_sound_ids_are_kept_as_they_are(experiment):
    for run_id in ("lr=0.1, wd=0", "größe", "🙂", ".hidden", "a..b", "x" * 255):
        assert finish(experiment.create_run(run_id)).id == run_id

    assert len(experiment.previous_runs) == 6


def test_an_id_is_a_time_stamp_with_a_number_behind_the_second(experiment, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda *_: "2026-11-20_23-12-01")

    ids = [finish(experiment.create_run()).id for _ in range(3)]

    stamp = "2026-11-20_23-12-01"
    assert ids == [stamp, f"{stamp}_2", f"{stamp}_3"]


def test_ids_without_a_record_differ_too(experiment, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda *_: "2026-11-20_23-12-01")

    ids = {finish(experiment.create_run(record=False)).id for _ in range(3)}

    assert len(ids) == 3


def test_the_name_of_a_subclass_is_its_experiments_name(tmp_path):
    class Ablation(Experiment):
        pass

    assert Ablation(par_dir=tmp_path).name == "Ablation"


# -- where -----------------------------------------------------------------------


def test_the_folder_is_the_argument_then_the_variable_then_the_working_directory(
    tmp_path, monkeypatch
):
    assert Experiment(name="E").par_dir == pathlib.Path.cwd()

    monkeypatch.setenv("DRYTRACK_DIR", str(tmp_path / "from variable"))
    assert Experiment(name="E").par_dir == tmp_path / "from variable"
    assert Experiment(name="E", par_dir=tmp_path).par_dir == tmp_path


def test_a_script_that_changes_its_directory_keeps_its_runs_together(
    tmp_path, monkeypatch
):
    experiment = Experiment(name="E", par_dir="relative")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    run = finish(experiment.create_run())

    assert run.path.is_relative_to(tmp_path / "relative")
    assert list(elsewhere.iterdir()) == []


def test_nothing_is_written_beside_the_folder(tmp_path):
    experiment = Experiment(name="E", par_dir=tmp_path / "a" / "store")

    finish(experiment.create_run())

    assert {path.name for path in tmp_path.iterdir()} == {"a"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"store"}
    assert {path.name for path in (tmp_path / "a/store").iterdir()} == {".drytrack"}


def test_version_control_is_told_to_ignore_the_records(experiment):
    finish(experiment.create_run())

    assert (experiment.par_dir / ".drytrack" / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("variable", ["0", "off", "False", "no"])
def test_the_environment_switches_records_off(
    experiment, tmp_path, monkeypatch, variable
):
    monkeypatch.setenv("DRYTRACK_RECORD", variable)

    run = finish(experiment.create_run())

    assert run.path is None
    assert files_below(tmp_path) == set()


def test_an_unknown_value_of_the_variable_is_refused(experiment, monkeypatch):
    monkeypatch.setenv("DRYTRACK_RECORD", "perhaps")

    with pytest.raises(ConfigurationError, match=r"'perhaps'. Set it to 0 or 1"):
        experiment.create_run()


# -- resume ------------------------------------------------------------------------


def test_an_id_that_exists_is_refused_and_the_error_says_how_to_go_on(experiment):
    finish(experiment.create_run("a"))

    with pytest.raises(RunExistsError, match=r"create_run\('a', resume=True\)"):
        experiment.create_run("a")


def test_a_run_is_resumed_by_its_id(experiment):
    first = finish(experiment.create_run("a"))
    finish(experiment.create_run("b"))

    again = experiment.create_run("a", resume=True)

    assert (again.id, again.uuid, again.attempt) == ("a", first.uuid, 2)
    assert again.resumed
    assert not first.resumed


def test_the_last_run_is_resumed_without_an_id(experiment):
    finish(experiment.create_run("b"))
    finish(experiment.create_run("a"))

    assert experiment.create_run(resume=True).id == "a"


def test_auto_starts_a_run_and_then_goes_on_with_it(experiment):
    first = finish(experiment.create_run("job", resume="auto"))
    second = finish(experiment.create_run("job", resume="auto"))
    third = finish(experiment.create_run(resume="auto"))

    assert [run.attempt for run in (first, second, third)] == [1, 2, 3]
    assert {run.id for run in (first, second, third)} == {"job"}


def test_auto_without_any_run_starts_one(experiment):
    run = finish(experiment.create_run(resume="auto"))

    assert not run.resumed


def test_nothing_to_resume_is_an_error_that_names_the_remedy(experiment):
    with pytest.raises(RunNotFoundError, match="resume='auto'") as caught:
        experiment.create_run(resume=True)
    assert "It has none" in str(caught.value)

    finish(experiment.create_run("known"))
    with pytest.raises(RunNotFoundError, match="The last ones are: known"):
        experiment.create_run("unknown", resume=True)
    assert isinstance(caught.value, LookupError)


def test_a_refused_resume_leaves_no_folder(experiment, tmp_path):
    with pytest.raises(RunNotFoundError):
        experiment.create_run("a", resume=True)

    assert files_below(tmp_path) == set()


@pytest.mark.parametrize("resume", ["yes", None, 2, "Auto"])
def test_an_unknown_resume_is_refused(experiment, resume):
    with pytest.raises(ConfigurationError, match="True, False or 'auto'"):
        experiment.create_run(resume=resume)


def test_an_unknown_durability_is_refused(experiment):
    with pytest.raises(ConfigurationError, match="'process' or 'machine'"):
        experiment.create_run(durability="forever")


def test_an_active_run_can_neither_be_created_nor_resumed_again(experiment):
    with experiment.create_run("a"):
        with pytest.raises(RunHeldError, match="held by process"):
            experiment.create_run("a", resume=True)
        with pytest.raises(RunHeldError, match="held by process"):
            experiment.create_run("a")


def test_of_two_runs_prepared_to_resume_the_same_one_the_first_to_start_wins(
    experiment,
):
    finish(experiment.create_run("a"))
    fast = experiment.create_run("a", resume=True)
    slow = experiment.create_run("a", resume=True)

    with fast, pytest.raises(RunHeldError, match="taken by another process"):
        contextvars.Context().run(slow.start)

    assert len(record_of(fast)["attempts"]) == 2


def test_a_run_that_was_created_and_never_started_can_be_resumed(experiment):
    created = experiment.create_run("a")

    again = experiment.create_run("a", resume=True)

    assert again.uuid == created.uuid
    assert not again.resumed
    finish(again)
    assert [record.status for record in experiment.previous_runs] == ["completed"]


def test_runs_without_a_record_are_resumed_in_the_same_process(experiment, tmp_path):
    first = finish(experiment.create_run("a", record=False))
    finish(experiment.create_run("b", record=False))

    again = finish(experiment.create_run("a", resume=True, record=False))

    assert (again.uuid, again.attempt, again.resumed) == (first.uuid, 2, True)
    with pytest.raises(RunExistsError):
        experiment.create_run("b", record=False)
    with pytest.raises(RunNotFoundError):
        experiment.create_run("c", resume=True, record=False)
    assert files_below(tmp_path) == set()


def test_the_start_event_says_which_attempt_it_is(experiment):
    with capture_events(experiment) as events:
        first = finish(experiment.create_run("a"))
        finish(experiment.create_run("a", resume=True))

    starts = [event for event in events if isinstance(event, StartExperimentEvent)]
    assert [(e.resumed, e.attempt) for e in starts] == [(False, 1), (True, 2)]
    assert starts[0].run_ts == starts[1].run_ts
    assert starts[0].run_id == first.id


# -- previous runs -----------------------------------------------------------------


def test_previous_runs_belong_to_one_experiment(tmp_path):
    left = Experiment(name="Left", par_dir=tmp_path)
    right = Experiment(name="Right", par_dir=tmp_path)
    finish(left.create_run("l"))
    finish(right.create_run("r1"))
    finish(right.create_run("r2"))

    assert [record.id for record in left.previous_runs] == ["l"]
    assert [record.id for record in right.previous_runs] == ["r1", "r2"]
    assert {record.experiment for record in right.previous_runs} == {"Right"}


def test_a_second_experiment_of_the_same_name_sees_the_same_runs(tmp_path):
    finish(Experiment(name="E", par_dir=tmp_path).create_run("a"))

    again = Experiment(name="E", par_dir=tmp_path)

    assert [record.id for record in again.previous_runs] == ["a"]
    assert again.create_run(resume=True).id == "a"


def test_a_previous_run_tells_its_status_and_error(experiment):
    finish(experiment.create_run("good"))
    with pytest.raises(ZeroDivisionError), experiment.create_run("bad"):
        _ = 1 / 0

    good, bad = experiment.previous_runs

    assert (good.status, good.error, good.attempt) == ("completed", None, 1)
    assert bad.status == "failed"
    assert bad.error["type"] == "ZeroDivisionError"
    assert "1 / 0" in bad.error["traceback"]


# -- records that cannot be read -------------------------------------------------


DAMAGED = {
    "missing": None,
    "empty": b"",
    "half": b'{"schema": 1, "uuid": "x", "id": "a", "exper',
    "text": b"hello",
    "list": b"[]",
    "no attempts": b'{"schema": 1, "id": "a", "uuid": "u", "experiment": "Digits",'
    b' "status": "completed", "attempts": 3}',
    "zeros": b"\0" * 512,
    "not text": b"\xff\xfe{}",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_record_is_named_and_harms_no_other_run(experiment, content):
    broken = finish(experiment.create_run("broken"))
    finish(experiment.create_run("sound"))
    path = broken.path / "record.json"
    path.unlink() if content is None else path.write_bytes(content)

    with pytest.raises(RecordError, match="missing or damaged") as caught:
        experiment.create_run("broken", resume=True)
    with pytest.warns(RecordWarning, match="missing or damaged"):
        records = experiment.previous_runs
    with pytest.raises(RunExistsError):
        experiment.create_run("broken")

    assert str(path) in str(caught.value)
    assert [record.id for record in records] == ["sound"]
    with pytest.warns(RecordWarning):
        assert experiment.create_run(resume=True).id == "sound"


def test_a_record_of_a_newer_version_is_refused_with_the_remedy(experiment):
    run = finish(experiment.create_run("a"))
    data = {**record_of(run), "schema": 99}
    (run.path / "record.json").write_text(json.dumps(data))

    with pytest.raises(RecordError, match=r"newer drytrack .*Update drytrack"):
        experiment.create_run("a", resume=True)

    assert record_of(run) == data


def test_leftovers_of_an_interrupted_write_are_ignored(experiment):
    run = finish(experiment.create_run("a"))
    (run.path / ".record.json.123-456").write_text('{"half": ')
    (run.path / "attempts" / ".2.123-456").write_text("{")

    again = finish(experiment.create_run("a", resume=True))

    assert again.attempt == 2


def test_an_attempt_whose_record_was_not_written_counts(experiment):
    run = finish(experiment.create_run("a"))
    holder = (run.path / "attempts" / "1").read_text()
    dead = json.loads(holder)
    dead["process"]["pid"] = 2**22 + 1
    (run.path / "attempts" / "2").write_text(json.dumps(dead))

    with experiment.create_run("a", resume=True) as again:
        [record] = experiment.previous_runs
        assert (again.attempt, record.attempt, record.status) == (3, 3, "running")
    assert finish(experiment.create_run("a", resume=True)).attempt == 4


def test_a_foreign_file_among_the_runs_is_no_run(experiment):
    run = finish(experiment.create_run("a"))
    (run.path.parent / "notes.txt").write_text("hello")

    assert [record.id for record in experiment.previous_runs] == ["a"]


def test_a_clock_that_goes_backwards_breaks_no_run(experiment, monkeypatch):
    true_time = time.time
    with experiment.create_run("a"):
        monkeypatch.setattr(time, "time", lambda: true_time() - 86_400)
    with experiment.create_run("b"):
        monkeypatch.setattr(time, "time", lambda: true_time() - 2 * 86_400)
    again = finish(experiment.create_run("a", resume=True))

    assert again.attempt == 2
    assert {record.status for record in experiment.previous_runs} == {"completed"}


def test_a_clock_that_repeats_a_second_gives_no_id_twice(experiment, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_000_000_000.0)
    monkeypatch.setattr(time, "monotonic_ns", lambda: 5)

    ids = {finish(experiment.create_run()).id for _ in range(3)}

    assert len(ids) == 3


# -- folders that cannot be written ----------------------------------------------


def test_a_folder_below_a_file_is_an_error_that_names_the_remedies(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    experiment = Experiment(name="E", par_dir=tmp_path / "file" / "store")

    with pytest.raises(StorageError, match="cannot be written") as caught:
        experiment.create_run()

    for remedy in ("par_dir", "DRYTRACK_DIR", "record=False"):
        assert remedy in str(caught.value)
    assert isinstance(caught.value, OSError)
    finish(experiment.create_run(record=False))


def test_a_file_where_the_experiments_folder_should_be_is_a_storage_error(tmp_path):
    (tmp_path / ".drytrack").mkdir()
    (tmp_path / ".drytrack" / "E").write_text("in the way")

    with pytest.raises(StorageError, match="cannot be written"):
        Experiment(name="E", par_dir=tmp_path).create_run("a")
    with pytest.raises(StorageError, match="cannot be written"):
        Experiment(name="E", par_dir=tmp_path).create_run()


def test_eight_threads_that_create_the_same_run_make_one(experiment):
    made, refused = [], []
    together = threading.Barrier(8)

    def create():
        together.wait()
        try:
            made.append(experiment.create_run("a"))
        except (RunExistsError, RunHeldError) as err:
            refused.append(err)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(made), len(refused)) == (1, 7)


def test_eight_threads_without_an_id_make_eight_runs(experiment):
    runs = []
    together = threading.Barrier(8)

    def create():
        together.wait()
        runs.append(experiment.create_run())

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({run.path for run in runs}) == 8


# -- configurations --------------------------------------------------------------


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no repr")


def deeply_nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def cyclic():
    config = {"name": "loop"}
    config["self"] = [config]
    return config


def big_array():
    return {"data": np.zeros(13_000_000)}


ODD = {
    "lambda": lambda: {"activation": lambda x: x},
    "lock": lambda: {"lock": threading.Lock()},
    "cycle": cyclic,
    "100 MB array": big_array,
    "module": lambda: {"backend": os},
    "generator": lambda: {"stream": (i for i in range(3))},
    "raising repr": lambda: Unprintable(),
    "nested 10,000 deep": lambda: {"deep": deeply_nested(10_000)},
    "namespace": lambda: types.SimpleNamespace(model=Unprintable()),
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD.keys())
def test_an_odd_configuration_starts_a_run(tmp_path, make):
    config = make()
    experiment = Experiment(config, name="E", par_dir=tmp_path)

    with capture_events(experiment) as events, experiment.create_run() as run:
        assert experiment.get_config() is config

    assert run.status == "completed"
    json.dumps(events[0].config)  # plain data
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size < 1_000_000
    del config, make
    gc.collect()


@pytest.mark.torch
def test_a_torch_module_in_the_configuration_starts_a_run(tmp_path):
    import torch

    config = {"model": torch.nn.Linear(3, 2), "device": torch.device("cpu")}
    experiment = Experiment(config, name="E", par_dir=tmp_path)

    with capture_events(experiment) as events:
        run = finish(experiment.create_run())

    assert run.status == "completed"
    assert "Linear" in json.dumps(events[0].config)


def test_a_generator_in_the_configuration_is_not_consumed(tmp_path):
    stream = (number for number in range(3))
    experiment = Experiment({"stream": stream}, name="E", par_dir=tmp_path)

    finish(experiment.create_run())

    assert list(stream) == [0, 1, 2]


def test_secrets_of_the_configuration_are_in_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--token=hunter2-argv"])
    config = {
        "api_key": "hunter2-key",
        "db": {"password": "hunter2-nested", "url": "https://me:hunter2-url@host/x"},
        "wandb_token": "hunter2-token",
        "lr": 0.5,
    }
    experiment = Experiment(config, name="E", par_dir=tmp_path)

    with (
        capture_events(experiment) as events,
        pytest.raises(RuntimeError),
        experiment.create_run(),
    ):
        raise RuntimeError("https://me:hunter2-error@host failed")

    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert b"hunter2" not in path.read_bytes(), path
    assert "hunter2" not in repr(events)
    assert events[0].config["lr"] == 0.5
    assert experiment.get_config()["api_key"] == "hunter2-key"


def test_the_run_configuration_is_merged_over_the_experiments(experiment):
    changed = {"lr": 0.5, "seed": 1}
    with (
        capture_events(experiment) as events,
        experiment.create_run(config=changed) as run,
    ):
        assert experiment.get_config() == changed
        assert Experiment.get_config() == changed

    assert events[0].config == {"lr": 0.5, "seed": 1}
    assert run.config == {"lr": 0.5, "seed": 1}
    assert experiment.get_config() == {"lr": 0.1}


def test_a_run_configuration_over_no_mapping_is_refused(tmp_path):
    @dataclasses.dataclass
    class Config:
        lr: float = 0.1

    experiment = Experiment(Config(), name="E", par_dir=tmp_path)

    with pytest.raises(ConfigurationError, match="configuration is a Config"):
        experiment.create_run(config={"lr": 0.2})

    assert files_below(tmp_path) == set()


def test_get_config_gives_the_very_object(tmp_path):
    config = object()
    experiment = Experiment(config, name="E", par_dir=tmp_path)

    with experiment.create_run():
        assert experiment.get_config() is config
        assert Experiment.get_config() is config


def test_changing_the_configuration_later_changes_no_event(experiment):
    with capture_events(experiment) as events, experiment.create_run():
        experiment.config["lr"] = 99.0

    assert events[0].config == {"lr": 0.1}


# -- the current experiment ------------------------------------------------------


def test_the_current_experiment_is_found_by_its_class(tmp_path):
    class Ours(Experiment):
        pass

    class Theirs(Experiment):
        pass

    ours = Ours(par_dir=tmp_path)
    with ours.create_run():
        assert Experiment.get_current() is ours
        assert Ours.get_current() is ours
        with pytest.raises(AccessOutsideScopeError, match="belongs to a Ours"):
            Theirs.get_current()


def test_there_is_no_current_experiment_outside_a_run(experiment):
    with pytest.raises(AccessOutsideScopeError, match="outside a run"):
        Experiment.get_current()

    finish(experiment.create_run())
    with pytest.raises(AccessOutsideScopeError, match="outside a run"):
        Experiment.get_config()


def test_a_tag_with_control_characters_is_refused(tmp_path):
    with pytest.raises(InvalidNameError, match="tag"):
        Experiment(name="E", par_dir=tmp_path, tags=["good", "b\nad"])


def test_tags_and_description_are_recorded(tmp_path):
    experiment = Experiment(
        name="E", par_dir=tmp_path, tags=["mlp"], description="A try."
    )

    run = finish(experiment.create_run())

    assert experiment.previous_runs[0].tags == ["mlp"]
    assert record_of(run)["description"] == "A try."


def test_every_refusal_is_an_error_of_our_own(experiment):
    for call in (
        lambda: experiment.create_run("a/b"),
        lambda: experiment.create_run(resume=True),
        lambda: experiment.create_run(rank=-1),
    ):
        with pytest.raises(DrytrackError):
            call()


def test_a_full_disk_at_the_start_is_a_storage_error(experiment, monkeypatch):
    run = experiment.create_run("a")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(*_):
        raise full

    monkeypatch.setattr(pathlib.Path, "replace", refuse)
    with pytest.raises(StorageError, match="No space left"):
        run.start()
    monkeypatch.undo()

    assert run.status == "created"
    with pytest.raises(AccessOutsideScopeError):
        Experiment.get_current()
