from __future__ import annotations

import math
import sys

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from tracker_events import NOW, start

import drytrack
from drytrack.core import log_events
from drytrack.core.exceptions import MissingDependencyError
from drytrack.testing import TrackerContract
from drytrack.trackers.yaml import YamlDumper

ARCHITECTURE = "MLP(\n  (0): Linear(64, 32) \n\t(1): ReLU()\n)"

# What makes a text hard to write, more often than chance would have it.
TRICKY = st.sampled_from("ab:#- \t\n\r\"'é😀{[|>%\x85\u2028\ufeff&*!?,0.~\\")
TEXT = st.text(TRICKY | st.characters(exclude_categories=["Cs"]), max_size=120)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | TEXT,
    lambda children: (
        st.lists(children, max_size=6) | st.dictionaries(TEXT, children, max_size=5)
    ),
    max_leaves=15,
)


def register_model(name="mlp", text=ARCHITECTURE):
    return log_events.ModelRegistrationEvent.unpublished(name, NOW, text)


def register_actor(name="trainer", metadata=None):
    return log_events.ActorRegistrationEvent.unpublished(
        name, NOW, "mlp", NOW, metadata
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "yaml" / "Digits" / "run"


@pytest.fixture
def dumper(tmp_path):
    dumper = YamlDumper()
    dumper.notify(start(tmp_path))
    return dumper


def read(path):
    return yaml.safe_load(path.read_bytes())


class TestYamlDumper(TrackerContract):
    def make_tracker(self, tmp_path):
        return YamlDumper(tmp_path)


def test_a_run_leaves_configuration_model_and_actor(tmp_path):
    class Trainer:
        def __init__(self):
            self.batch_size = 32

    config = {"lr": 1e-3, "layers": [64, 32], "password": "hunter2"}
    experiment = drytrack.Experiment(config, name="Digits", par_dir=tmp_path)
    experiment.trackers.remove_all()
    experiment.trackers.subscribe(YamlDumper())

    with experiment.create_run("run") as run:
        run.register_model(object(), name="mlp")
        run.register_actor(Trainer(), "mlp", "trainer")

    folder = tmp_path / "yaml" / "Digits" / "run"
    config = read(folder / "config.yaml")
    assert config.pop("password") != "hunter2"
    assert config == {"lr": 1e-3, "layers": [64, 32]}
    assert read(folder / "models" / "mlp.yaml")["model_name"] == "mlp"
    actor = read(folder / "actors" / "mlp" / "trainer.yaml")
    assert actor["actor_name"] == "trainer"
    assert actor["metadata"]["batch_size"] == 32


@given(PLAIN)
@example({"text": " begins with a blank\nsecond line"})
@example(["\n  indented after an empty line", "ends in blanks\n  ", "\ttab\nfirst"])
def test_any_plain_data_is_read_back(config):
    from drytrack.trackers._yaml_style import dump

    assert yaml.safe_load(dump(config)) == config


def test_frozen_data_of_events_is_read_back_in_order(tmp_path, folder):
    config = {"z": {"b": [1, 2, {"c": None}]}, "a": [], "m": {}, "é": "😀"}

    YamlDumper().notify(start(tmp_path, config))

    found = read(folder / "config.yaml")
    assert found == config
    assert list(found) == ["z", "a", "m", "é"]
    assert "😀" in (folder / "config.yaml").read_text(encoding="utf-8")


def test_non_finite_numbers_are_numbers(tmp_path, folder):
    YamlDumper().notify(start(tmp_path, [math.nan, math.inf, -math.inf, 1e300]))

    nan, *others = read(folder / "config.yaml")
    assert math.isnan(nan)
    assert others == [math.inf, -math.inf, 1e300]


def test_text_of_several_lines_is_a_block(dumper, folder):
    dumper.notify(register_model())

    text = (folder / "models" / "mlp.yaml").read_text(encoding="utf-8")
    assert "architecture: |-\n  MLP(\n    (0): Linear(64, 32) \n  \t(1)" in text
    assert yaml.safe_load(text)["architecture"] == ARCHITECTURE


def test_long_text_is_a_block_and_short_lists_are_one_line(tmp_path, folder):
    config = {"long": "word " * 30 + "end", "short": [1, 2.5, "x"], "deep": [[1], [2]]}

    YamlDumper().notify(start(tmp_path, config))

    lines = (folder / "config.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "long: |-"
    assert "short: [1, 2.5, x]" in lines
    assert lines[-3:] == ["deep:", "  - [1]", "  - [2]"]
    assert read(folder / "config.yaml") == config


def test_what_occurs_twice_is_written_twice(tmp_path, folder):
    shared = {"size": 3}

    YamlDumper().notify(start(tmp_path, {"a": shared, "b": shared}))

    assert "&" not in (folder / "config.yaml").read_text(encoding="utf-8")


def test_pyyaml_stays_as_it_is(dumper):
    data = {"b": "one\ntwo", "a": [1, 2]}
    before = yaml.safe_dump(data), yaml.dump(data)

    dumper.notify(register_model())

    assert (yaml.safe_dump(data), yaml.dump(data)) == before
    assert str in yaml.SafeDumper.yaml_representers
    representer = yaml.SafeDumper.yaml_representers[str]
    assert representer is yaml.representer.SafeRepresenter.represent_str


def test_a_later_attempt_writes_files_of_its_own(tmp_path, dumper, folder):
    dumper.notify(register_model())

    dumper.notify(start(tmp_path, {"lr": 2}, resumed=True, attempt=2))
    dumper.notify(register_model(text="another"))
    dumper.notify(register_actor())

    assert read(folder / "config.yaml") is None
    assert read(folder / "config_2.yaml") == {"lr": 2}
    assert read(folder / "models" / "mlp.yaml")["architecture"] == ARCHITECTURE
    assert read(folder / "models_2" / "mlp.yaml")["architecture"] == "another"
    assert (folder / "actors_2" / "mlp" / "trainer.yaml").exists()


def test_an_id_that_is_used_again_replaces_no_configuration(tmp_path, folder):
    for lr in (1, 2, 3):
        YamlDumper().notify(start(tmp_path, {"lr": lr}))

    names = ["config.yaml", "config_2.yaml", "config_3.yaml"]
    assert [read(folder / name)["lr"] for name in names] == [1, 2, 3]


@pytest.mark.parametrize(
    "name", ["a/b", "..", ".hidden", "con", "x" * 300, "😀" * 100, "a\\b", "C:", "é"]
)
def test_odd_names_stay_inside_the_folder_and_are_kept(dumper, folder, name):
    dumper.notify(register_model(name))
    dumper.notify(register_actor(name))

    [model] = (folder / "models").iterdir()
    [actor] = (folder / "actors" / "mlp").iterdir()
    assert read(model)["model_name"] == name
    assert read(actor)["actor_name"] == name


def test_names_that_differ_in_case_have_files_that_differ_in_more(dumper, folder):
    for name in ("net", "Net", "NET"):
        dumper.notify(register_model(name))

    paths = list((folder / "models").iterdir())
    assert {read(path)["model_name"] for path in paths} == {"net", "Net", "NET"}
    assert len({path.name.casefold() for path in paths}) == 3


def test_without_pyyaml_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)

    with pytest.raises(MissingDependencyError, match="pip install pyyaml"):
        YamlDumper()
