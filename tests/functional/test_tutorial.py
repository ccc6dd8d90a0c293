"""The tutorial's code runs as it stands, cell after cell, in one process.

Its wording is kept where it is the interface: names, calls and the classic form
of a tracker.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

MODES = """
from drytrack import Experiment, init_trackers


init_trackers(mode='minimal')

tuning_experiment = Experiment(
    None, name='TuningExperiment', par_dir='experiments'
)
with tuning_experiment.create_run():
    pass  # no logging output

init_trackers()
standard_experiment = Experiment(
    None, name='StandardExperiment', par_dir='experiments'
)
with standard_experiment.create_run():
    pass  # log experiment's name
"""

DEFAULTS = """
import pathlib

from drytrack import extend_default_trackers
from drytrack.trackers.csv import CSVDumper


csv_dumper = CSVDumper(par_dir=pathlib.Path('experiments', 'my_directory'))
extend_default_trackers([csv_dumper])
"""

CURRENT = """
csv_dumper_experiment = Experiment(
    None, name='ExperimentWithCSVDumper', par_dir='experiments'
)

with csv_dumper_experiment.create_run():
    if CSVDumper.get_current() is not csv_dumper:
        raise AssertionError('Trackers should coincide.')
"""

CUSTOM = '''
import functools
import pprint

from typing_extensions import override

from drytrack.core import log_events
from drytrack.core.track import Tracker


class MetadataVisualizer(Tracker):
    """Tracker that prints the metadata on the console."""

    @functools.singledispatchmethod
    @override
    def notify(self, event: log_events.Event) -> None:
        return super().notify(event)

    @notify.register
    def _(self, event: log_events.ModelRegistrationEvent) -> None:
        pprint.pp(event.architecture_repr)
        return super().notify(event)

    @notify.register
    def _(self, event: log_events.ActorRegistrationEvent) -> None:
        pprint.pp(event.metadata)
        return super().notify(event)
'''

AT_STOP = """
class Farewell(Tracker):
    cleaned = 0

    @functools.singledispatchmethod
    @override
    def notify(self, event: log_events.Event) -> None:
        return super().notify(event)

    @notify.register
    def _(self, event: log_events.StopExperimentEvent) -> None:
        print('stopped', event.exp_name)
        return super().notify(event)

    def clean_up(self) -> None:
        self.cleaned += 1
"""

USE = """
init_trackers('none')
farewell = Farewell()
my_experiment = Experiment({'lr': 0.1}, name='Mine', par_dir='experiments')
my_experiment.trackers.subscribe(MetadataVisualizer(), farewell)
with my_experiment.create_run() as run:
    run.register_model('an architecture', name='net')
    run.register_actor(object(), 'net', 'trainer', metadata={'batch_size': 32})
print('cleaned', farewell.cleaned)
"""


def run_cells(*cells, folder):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(cells)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_tutorial_runs_as_it_stands(tmp_path):
    done = run_cells(MODES, DEFAULTS, CURRENT, CUSTOM, folder=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "TuningExperiment" not in done.stderr
    assert "StandardExperiment" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"experiments"}


@pytest.mark.parametrize("form", [CUSTOM, CUSTOM + AT_STOP], ids=["metadata", "stop"])
def test_the_classic_form_is_defined_without_a_warning(tmp_path, form):
    done = run_cells(form, folder=tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_tutorials_trackers_do_what_they_say(tmp_path):
    experiment = "from drytrack import Experiment, init_trackers\n"

    done = run_cells(experiment, CUSTOM, AT_STOP, USE, folder=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "'an architecture'",
        "{'batch_size': 32}",
        "stopped Mine",
        "cleaned 1",
    ]
