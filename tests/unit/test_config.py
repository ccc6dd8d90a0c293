"""Trackers and experiments from configurations."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import omegaconf
import pytest
import yaml
from click.testing import CliRunner

from drytrack import backends
from drytrack.cli._app import app
from drytrack.config import (
    config_model,
    config_schema,
    experiment_from_config,
    tracker_from_config,
)
from drytrack.core import _defaults
from drytrack.core.exceptions import (
    ConfigurationError,
    MissingDependencyError,
    RecordError,
    RunStateError,
    RunWarning,
    UnknownBackendError,
)
from drytrack.core.log_events import StartExperimentEvent, StepMetricEvent
from drytrack.testing import Recorder
from drytrack.trackers.csv import CSVDumper
from drytrack.trackers.yaml import YamlDumper


class Marked(Recorder):
    """A third-party tracker."""

    def __init__(self, color: str, size: int = 3, copy: bool = False) -> None:
        super().__init__()
        self.options = (color, size, copy)


@pytest.fixture(autouse=True)
def _surroundings(no_default_trackers, monkeypatch):
    monkeypatch.setattr(backends, "_registered", {"marked": Marked})


def write_yaml(folder, data):
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


# -- a tracker -----------------------------------------------------------------------


def test_a_tracker_of_a_mapping_opens_a_run_that_it_watches_alone(tmp_path):
    tracker = tracker_from_config({"provider": "csv", "par_dir": str(tmp_path)})

    with tracker.open(name="digits", description="small", hparams={"lr": 0.1}) as run:
        run.set_step(3)
        run.scalar("loss", 2.0)
        run.bins("weights", [1.0, 2.0])
        assert list(run.experiment.trackers.named_trackers) == ["csv"]
        loaded = run.get_backend("csv").load_metrics("", axis="step")

    assert isinstance(tracker.innermost, CSVDumper)
    assert loaded["run"]["loss"].steps == [3]
    assert run.experiment.description == "small"
    assert run.path.is_relative_to(tmp_path)


def forms(tmp_path):
    data = {"provider": "marked", "color": "blue", "copy": True}
    return {
        "mapping": data,
        "path": write_yaml(tmp_path, data),
        "text path": str(write_yaml(tmp_path, data)),
        "omegaconf": omegaconf.OmegaConf.create(data),
        "pydantic": config_model("marked")(color="blue", copy=True),
    }


@pytest.mark.parametrize(
    "form", ["mapping", "path", "text path", "omegaconf", "pydantic"]
)
def test_a_configuration_comes_in_many_forms(tmp_path, form):
    tracker = tracker_from_config(forms(tmp_path)[form])

    assert tracker.innermost.options == ("blue", 3, True)


def test_a_value_is_converted_to_the_type_of_the_option():
    tracker = tracker_from_config({"provider": "marked", "color": "red", "size": "7"})

    assert tracker.innermost.options == ("red", 7, False)


def test_a_restart_opens_the_run_of_the_checkpoint(tmp_path):
    config = {"provider": "csv", "par_dir": str(tmp_path)}
    tracker = tracker_from_config(config)
    assert tracker.state_dict() == {"run": ""}
    with tracker.open(name="digits") as run:
        run.log({"loss": 2.0})
        state = tracker.state_dict()
    restarted = tracker_from_config(config)
    restarted.load_state_dict(state)

    with restarted.open(name="digits") as again:
        again.log({"loss": 1.0})

    assert (again.id, again.attempt, again.last_steps["run"]) == (run.id, 2, 2)


def test_without_a_state_each_opening_is_a_new_run(tmp_path):
    tracker = tracker_from_config({"provider": "csv", "par_dir": str(tmp_path)})
    with tracker.open(name="digits") as first:
        pass
    with tracker.open(name="digits") as second:
        pass

    assert first.id != second.id


def test_a_state_cannot_be_loaded_into_an_open_run(tmp_path):
    tracker = tracker_from_config({"provider": "csv", "par_dir": str(tmp_path)})

    with (
        tracker.open(name="digits"),
        pytest.raises(RunStateError, match="is open, so no state can be loaded"),
    ):
        tracker.load_state_dict(tracker.state_dict())
    with pytest.raises(RecordError, match="no state of a run"):
        tracker.load_state_dict({"run_id": 3})


def test_opening_an_open_tracker_finishes_the_first_run_with_a_warning(tmp_path):
    tracker = tracker_from_config({"provider": "csv", "par_dir": str(tmp_path)})

    with tracker.open(name="digits") as first:
        with pytest.warns(RunWarning, match="was still open"):
            opening = tracker.open(name="digits")  # kept: it closes with its last name
            second = opening.__enter__()
        assert (first.status, second.status) == ("completed", "running")
        second.finish()


def test_it_can_be_subscribed_as_any_tracker(tmp_path):
    tracker = tracker_from_config({"provider": "marked", "color": "red"})
    experiment = experiment_from_config({"name": "digits", "par_dir": str(tmp_path)})
    experiment.trackers.subscribe(tracker)

    with experiment.create_run() as run:
        run.log({"loss": 1.0})
        assert run.get_backend("Marked") is tracker.innermost

    assert any(isinstance(e, StepMetricEvent) for e in tracker.innermost.events)


# -- an experiment -------------------------------------------------------------------


def test_an_experiment_of_a_file_has_its_trackers(tmp_path):
    path = write_yaml(
        tmp_path,
        {
            "name": "digits",
            "par_dir": str(tmp_path / "runs"),
            "tags": ["mlp"],
            "description": "small",
            "config": {"lr": 0.1},
            "trackers": [{"provider": "csv"}, {"provider": "marked", "color": "red"}],
        },
    )

    experiment = experiment_from_config(path)
    with experiment.create_run() as run:
        run.log({"loss": 1.0})

    trackers = experiment.trackers.named_trackers
    assert list(trackers) == ["csv", "Marked"]
    start = next(
        e for e in trackers["Marked"].events if isinstance(e, StartExperimentEvent)
    )
    assert (start.exp_name, start.config, start.tags, start.description) == (
        "digits",
        {"lr": 0.1},
        ["mlp"],
        "small",
    )
    assert run.path.is_relative_to(tmp_path / "runs")


def test_trackers_can_be_named(tmp_path):
    experiment = experiment_from_config(
        {
            "name": "digits",
            "trackers": {
                "here": {"provider": "csv", "par_dir": str(tmp_path / "a")},
                "there": {"provider": "csv", "par_dir": str(tmp_path / "b")},
            },
        }
    )

    assert list(experiment.trackers.named_trackers) == ["here", "there"]


@pytest.mark.parametrize(
    ("keep", "names"), [(True, ["yaml", "Marked"]), (False, ["Marked"])]
)
def test_default_trackers_stay_unless_they_are_left_out(monkeypatch, keep, names):
    monkeypatch.setattr(_defaults, "trackers", {"yaml": YamlDumper()})

    experiment = experiment_from_config(
        {
            "name": "digits",
            "default_trackers": keep,
            "trackers": [{"provider": "marked", "color": "red"}],
        }
    )

    assert list(experiment.trackers.named_trackers) == names


def test_a_tracker_that_is_configured_takes_the_place_of_a_default_one(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(_defaults, "trackers", {"yaml": YamlDumper()})
    folder = tmp_path / "elsewhere"

    experiment = experiment_from_config(
        {"name": "a", "trackers": [{"provider": "yaml", "par_dir": str(folder)}]}
    )

    assert experiment.trackers.named_trackers["yaml"].par_dir == folder


THEIRS = """
from drytrack.testing import Recorder


class Theirs(Recorder):
    def __init__(self, color: str, size: int = 3) -> None:
        super().__init__()
        self.options = color, size
"""


def test_a_tracker_of_an_installed_package_is_configured_as_ours(install_tracker):
    install_tracker("theirs", "theirs_of_config", THEIRS)

    tracker = tracker_from_config({"provider": "theirs", "color": "red", "size": "4"})
    with tracker.open(name="digits") as run:
        run.scalar("loss", 0.5)

    assert tracker.innermost.options == ("red", 4)
    assert any(isinstance(e, StepMetricEvent) for e in tracker.innermost.events)
    assert config_schema()["$defs"]["TheirsConfig"]["required"] == ["color"]
    with pytest.raises(ConfigurationError, match="color is missing"):
        tracker_from_config({"provider": "theirs"})
    with pytest.raises(UnknownBackendError, match="Did you mean 'theirs'"):
        tracker_from_config({"provider": "theris"})


# -- what is wrong -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trackers", "error", "message"),
    [
        (
            [{"provider": "cvs"}],
            UnknownBackendError,
            r"trackers\[0\]\.provider in .*config\.yaml is 'cvs'.*Did you mean 'csv'",
        ),
        (
            [{"provider": "csv"}, {"par_dir": "x"}],
            UnknownBackendError,
            r"trackers\[1\]\.provider in .* is missing. Name one of .*csv",
        ),
        (
            [{"provider": "csv", "par_dri": "x"}],
            ConfigurationError,
            r"trackers\[0\]\.par_dri in .* = 'x' is no key .*Did you mean 'par_dir'",
        ),
        (
            {"a": {"provider": "csv", "api_key": "my-secret"}},
            ConfigurationError,
            r"trackers\.a\.api_key in .* = \*\*\* is no key there",
        ),
        (
            [{"provider": "csv", "par_dir": [1]}],
            ConfigurationError,
            r"trackers\[0\]\.par_dir in .* is \[1\]",
        ),
        (
            [{"provider": "marked", "color": "red", "size": "big"}],
            ConfigurationError,
            r"trackers\[0\]\.size in .* is 'big'\. Input should be a valid integer",
        ),
        (
            [{"provider": "marked"}],
            ConfigurationError,
            r"trackers\[0\]\.color in .* is missing",
        ),
        (
            [{"provider": "mlflow", "tags": {"team": 1}}],
            ConfigurationError,
            r"trackers\[0\]\.tags\.team in .* is 1\. Input should be a valid string",
        ),
        (["csv"], ConfigurationError, r"trackers\[0\] in .* is 'csv'. Make it a map"),
        ("csv", ConfigurationError, r"trackers in .* is 'csv'. Make it a list"),
        (
            [{"provider": "csv"}, {"provider": "csv"}],
            ConfigurationError,
            r"trackers\[1\] in .* second tracker named 'csv'",
        ),
        ([{"provider": 3}], UnknownBackendError, r"provider in .* is 3"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_value(
    tmp_path, trackers, error, message
):
    path = write_yaml(tmp_path, {"name": "digits", "trackers": trackers})

    with pytest.raises(error, match=message) as caught:
        experiment_from_config(path)

    assert "my-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"nam": "digits"}, r"nam = 'digits' is no key there. Did you mean 'name'"),
        ({}, "name is missing"),
        ({"name": "a", 3: 4}, "3 = 4 is no key there"),
        ({"name": "a", "tags": ["b", 3]}, r"tags\[1\] is 3. Input should be a valid"),
        ({"name": 3}, "name is 3. Input should be a valid string"),
        ({"name": "a", "tags": 3}, "tags is 3. Input should be a valid list"),
        ({"name": "a", "default_trackers": "perhaps"}, "default_trackers is 'perhaps'"),
        ([1], r"The configuration is a list: \[1\]. Make it a mapping"),
        (None, "The configuration is a NoneType"),
    ],
)
def test_an_experiment_that_is_wrong_is_told_so(data, message):
    with pytest.raises(ConfigurationError, match=message):
        experiment_from_config(data)


def test_a_file_that_cannot_be_read_is_told_so(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [")

    with pytest.raises(ConfigurationError, match=r"missing\.yaml' cannot be read"):
        tracker_from_config(tmp_path / "missing.yaml")
    with pytest.raises(
        ConfigurationError, match=r"broken\.yaml is no valid YAML: .*line"
    ):
        tracker_from_config(broken)


@pytest.mark.parametrize(
    ("value", "message"), [("???", "Missing mandatory value: par_dir"), ("${x}", "'x'")]
)
def test_what_omegaconf_cannot_resolve_is_told(value, message):
    config = omegaconf.OmegaConf.create({"provider": "csv", "par_dir": value})

    with pytest.raises(ConfigurationError, match=f"cannot be resolved: .*{message}"):
        tracker_from_config(config)


def test_a_missing_extra_is_told_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    path = write_yaml(tmp_path, {"name": "a", "trackers": [{"provider": "system"}]})

    with pytest.raises(
        MissingDependencyError,
        match=r"trackers\[0\]\.provider in .* is 'system'. .*drytrack\[system\]",
    ):
        experiment_from_config(path)


# -- the schema ----------------------------------------------------------------------


def test_the_schema_knows_every_tracker_that_can_be_imported():
    schema = config_schema()

    kinds = schema["properties"]["trackers"]["anyOf"][0]["items"]["discriminator"]
    assert {"csv", "yaml", "marked", "null"} <= set(kinds["mapping"])
    marked = schema["$defs"]["MarkedConfig"]
    assert marked["required"] == ["color"]
    assert marked["properties"]["copy"]["default"] is False
    assert marked["additionalProperties"] is False
    json.dumps(schema)


@pytest.mark.parametrize(
    ("data", "valid"),
    [
        ({"name": "a", "trackers": [{"provider": "csv", "par_dir": "x"}]}, True),
        ({"name": "a", "trackers": {"b": {"provider": "null"}}}, True),
        ({"name": "a", "trackers": [{"provider": "sqlite"}]}, True),
        ({"name": "a", "trackers": [{"provider": "csv", "pardir": "x"}]}, False),
        ({"name": "a", "trackers": [{"provider": "nowhere"}]}, False),
        ({"trackers": []}, False),
    ],
)
def test_the_schema_agrees_with_the_reader(data, valid):
    found = jsonschema.Draft202012Validator(config_schema()).is_valid(data)

    assert found is valid
    if valid:
        experiment_from_config(data)
    else:
        with pytest.raises(ConfigurationError):
            experiment_from_config(data)


def test_the_command_prints_the_schema():
    done = CliRunner().invoke(app, ["config", "schema"])

    assert done.exit_code == 0, done.output
    assert "CSVDumperConfig" in json.loads(done.output)["$defs"]


def test_no_file_is_written_where_a_tracker_is_only_made(tmp_path):
    tracker_from_config({"provider": "csv", "par_dir": str(tmp_path / "none")})

    assert not Path(tmp_path / "none").exists()
