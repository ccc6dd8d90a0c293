"""Runs in real processes: forked, spawned, killed, interrupted, and side by side."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

from drytrack import Experiment
from drytrack.core.exceptions import RunHeldError

pytestmark = pytest.mark.usefixtures("no_default_trackers")

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and fork of POSIX")
FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

# What every script begins with: an experiment whose events become lines of a file.
PREAMBLE = """
import os, pathlib, signal, sys, threading, time
from drytrack import Experiment, Tracker, TrainingLoop, init_trackers
from drytrack.core import log_events

init_trackers("none")

class Lines(Tracker):
    notify = Tracker.notify.extend()

    @notify.register
    def _keep(self, event: log_events.Event) -> None:
        with open("events.txt", "a") as file:
            file.write(f"{os.getpid()} {type(event).__name__}\\n")

experiment = Experiment({"lr": 0.1}, name="E", par_dir="store")
experiment.trackers.subscribe(Lines())

def publish(epoch=1):
    log_events.MetricEvent("m", "s", epoch, {"loss": 1.0})

def ready():
    print("ready", flush=True)
"""


@pytest.fixture
def experiment(tmp_path):
    return Experiment(name="E", par_dir=tmp_path / "store")


@contextlib.contextmanager
def script(body, *arguments):
    """Start a Python script in the working directory."""
    code = PREAMBLE + textwrap.dedent(body)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        except BaseException:
            process.kill()  # or leaving would wait for it
            raise


def run_script(body, *arguments, timeout=60):
    """Run a script to its end; return its exit code, output and errors."""
    with script(body, *arguments) as process:
        output, errors = process.communicate(timeout=timeout)
    return process.returncode, output, errors


def wait_until_ready(process):
    line = process.stdout.readline()
    assert line == "ready\n", process.stderr.read()


def events():
    """Return the names of the events that were delivered, in order."""
    path = pathlib.Path("events.txt")
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split()[1].removesuffix("Event") for line in lines]


def only_record(experiment):
    (record,) = experiment.previous_runs
    return record


# -- how a script ends -------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "status", "code"),
    [
        ("pass", "completed", 0),
        ("sys.exit()", "completed", 0),
        ("sys.exit(0)", "completed", 0),
        ("sys.exit(3)", "failed", 3),
        ("sys.exit('message')", "failed", 1),
        ("raise ValueError('x')", "failed", 1),
        ("raise KeyboardInterrupt", "interrupted", None),
    ],
)
def test_a_block_tells_how_its_script_ended(experiment, end, status, code):
    returned, _, errors = run_script(
        f"""
        with experiment.create_run():
            publish()
            {end}
        """
    )

    record = only_record(experiment)
    assert record.status == status, errors
    assert (record.error is None) == (status == "completed")
    assert events() == ["StartExperiment", "Metric", "StopExperiment"]
    if code is not None:
        assert returned == code


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("pass", "completed"),
        ("sys.exit(0)", "completed"),
        ("raise ValueError('x')", "failed"),
        ("raise KeyboardInterrupt", "interrupted"),
    ],
)
def test_a_script_that_never_stops_its_run_is_stopped_at_exit(experiment, end, status):
    _, _, errors = run_script(
        f"""
        run = experiment.create_run().start()
        publish()
        {end}
        """
    )

    assert only_record(experiment).status == status, errors
    assert events() == ["StartExperiment", "Metric", "StopExperiment"]


def test_the_cells_of_a_notebook_share_a_run(experiment):
    cells = [
        "run = experiment.create_run('a').start()",
        "net = run.register_model(object(), 'net')",
        "loop = TrainingLoop(net, name='t')\nfor _ in loop.epochs(1): publish()",
        "1 / 0",
        "publish(2)\nrun.stop()",
        "print(run.status)",
    ]
    code, output, errors = run_script(
        f"""
        import code
        shell = code.InteractiveConsole(globals())
        for cell in {cells!r}:
            try:
                exec(cell, globals())
            except Exception:
                sys.last_value = sys.exc_info()[1]
        """
    )

    assert (code, output) == (0, "completed\n"), errors
    assert only_record(experiment).status == "completed"
    assert events()[-2:] == ["Metric", "StopExperiment"]


def test_a_process_that_leaves_without_clean_up_reads_as_crashed(experiment):
    run_script(
        """
        with experiment.create_run("a"):
            publish()
            os._exit(0)
        """
    )

    assert only_record(experiment).status == "crashed"
    with experiment.create_run("a", resume=True) as run:
        assert (run.attempt, run.resumed) == (2, True)
    assert only_record(experiment).status == "completed"


# -- signals -----------------------------------------------------------------------

WAIT = """
with experiment.create_run("a") as run:
    publish()
    ready()
    for _ in range(6000):
        time.sleep(0.01)
"""


def test_a_killed_run_reads_as_crashed_and_is_resumed(experiment):
    with script(WAIT) as process:
        wait_until_ready(process)
        assert only_record(experiment).status == "running"
        with pytest.raises(RunHeldError, match=f"process {process.pid}"):
            experiment.create_run("a", resume=True)
        process.kill()

    assert only_record(experiment).status == "crashed"
    assert events() == ["StartExperiment", "Metric"]
    code, _, errors = run_script(
        """
        with experiment.create_run(resume="auto") as run:
            assert (run.id, run.attempt) == ("a", 2)
            publish(2)
        """
    )
    assert code == 0, errors
    record = only_record(experiment)
    assert (record.status, record.attempt) == ("completed", 2)


@POSIX
def test_sigterm_ends_the_block_and_the_process(experiment):
    with script(WAIT) as process:
        wait_until_ready(process)
        process.terminate()
        process.communicate(timeout=60)

    assert process.returncode == 143
    assert only_record(experiment).status == "interrupted"
    assert events()[-1] == "StopExperiment"


@POSIX
def test_sigterm_ends_a_run_that_was_started_without_a_block(experiment):
    with script(
        """
        run = experiment.create_run("a").start()
        ready()
        for _ in range(6000):
            time.sleep(0.01)
        """
    ) as process:
        wait_until_ready(process)
        process.terminate()
        process.communicate(timeout=60)

    assert process.returncode == 143
    assert only_record(experiment).status == "interrupted"


@POSIX
def test_sigint_interrupts_the_run(experiment):
    with script(WAIT) as process:
        wait_until_ready(process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)

    assert "KeyboardInterrupt" in errors
    record = only_record(experiment)
    assert (record.status, record.error["type"]) == ("interrupted", "KeyboardInterrupt")
    assert events()[-1] == "StopExperiment"


@POSIX
def test_a_users_sigterm_handler_decides_and_the_run_is_marked(experiment):
    with script(
        """
        asked = []
        signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
        with experiment.create_run("a"):
            ready()
            while not asked:
                time.sleep(0.01)
            publish(2)
        print("ended by itself")
        """
    ) as process:
        wait_until_ready(process)
        process.terminate()
        output, _ = process.communicate(timeout=60)

    assert (process.returncode, output) == (0, "ended by itself\n")
    assert only_record(experiment).status == "interrupted"
    assert events()[-2:] == ["Metric", "StopExperiment"]


@POSIX
def test_sigterm_after_the_run_kills_as_before(experiment):
    with script(
        """
        with experiment.create_run("a"):
            pass
        ready()
        for _ in range(6000):
            time.sleep(0.01)
        """
    ) as process:
        wait_until_ready(process)
        process.terminate()
        process.communicate(timeout=60)

    assert process.returncode == -signal.SIGTERM
    assert only_record(experiment).status == "completed"


@POSIX
@pytest.mark.slow
def test_sigterm_in_the_middle_of_publishing_never_hangs(experiment):
    for number in range(5):
        with script(
            f"""
            with experiment.create_run("run {number}"):
                ready()
                while True:
                    publish()
            """
        ) as process:
            wait_until_ready(process)
            process.terminate()
            process.communicate(timeout=60)
        assert process.returncode == 143

    assert {record.status for record in experiment.previous_runs} == {"interrupted"}


# -- forks and spawned processes ---------------------------------------------------


@FORK
def test_a_forked_child_is_inert_with_one_warning(experiment):
    code, output, errors = run_script(
        """
        import warnings
        with experiment.create_run("a") as run:
            publish()
            pid = os.fork()
            if pid == 0:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    for _ in range(3):
                        publish(99)
                print(len(caught), caught[0].category.__name__, flush=True)
                print("forked inside run a" in str(caught[0].message), flush=True)
                sys.exit(0)
            _, status = os.waitpid(pid, 0)
            publish(2)
        print(os.waitstatus_to_exitcode(status), run.status)
        """
    )

    assert code == 0, errors
    assert output == "1 RunWarning\nTrue\n0 completed\n"
    assert events() == ["StartExperiment", "Metric", "Metric", "StopExperiment"]
    assert only_record(experiment).status == "completed"


@FORK
def test_a_forked_child_that_raises_does_not_end_its_parents_run(experiment):
    code, _, errors = run_script(
        """
        with experiment.create_run("a") as run:
            pid = os.fork()
            if pid == 0:
                raise RuntimeError("in the child")
            os.waitpid(pid, 0)
            assert run.status == "running"
            publish(2)
        """
    )

    assert code == 0, errors
    assert events() == ["StartExperiment", "Metric", "StopExperiment"]
    assert only_record(experiment).status == "completed"


@FORK
def test_a_forked_child_may_start_a_run_of_its_own(experiment):
    code, _, errors = run_script(
        """
        with experiment.create_run("parent"):
            pid = os.fork()
            if pid == 0:
                mine = Experiment(name="Child", par_dir="store")
                with mine.create_run("child"):
                    publish()
                os._exit(7)
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) == 7
        """
    )

    assert code == 0, errors
    assert only_record(experiment).status == "completed"
    child = Experiment(name="Child", par_dir=experiment.par_dir)
    assert only_record(child).status == "completed"


@FORK
def test_a_child_forked_while_another_thread_publishes_does_not_hang(experiment):
    code, _, errors = run_script(
        """
        over = threading.Event()
        def work():
            while not over.is_set():
                publish()
        with experiment.create_run("a") as run:
            thread = threading.Thread(target=work)
            thread.start()
            for _ in range(20):
                pid = os.fork()
                if pid == 0:
                    publish(99)
                    sys.exit(0)
                _, status = os.waitpid(pid, 0)
                assert os.waitstatus_to_exitcode(status) == 0
            over.set()
            thread.join()
        """
    )

    assert code == 0, errors
    assert only_record(experiment).status == "completed"


@FORK
def test_sigterm_to_a_forked_child_kills_the_child_alone(experiment):
    code, _, errors = run_script(
        """
        born, say = os.pipe()
        with experiment.create_run("a") as run:
            pid = os.fork()
            if pid == 0:
                os.write(say, b"!")
                time.sleep(20)
                os._exit(0)
            # Python drops what reaches a child before it has come to itself.
            os.read(born, 1)
            os.kill(pid, signal.SIGTERM)
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
            assert run.status == "running"
        """
    )

    assert code == 0, errors
    assert only_record(experiment).status == "completed"


SPAWNED = """
import multiprocessing, sys
from drytrack import Experiment, init_trackers
from drytrack.core.exceptions import AccessOutsideScopeError

def child(queue):
    init_trackers("none")
    try:
        Experiment.get_current()
    except AccessOutsideScopeError:
        queue.put("outside")
    with Experiment(name="Child", par_dir="store").create_run() as run:
        queue.put(Experiment.get_current().name)

if __name__ == "__main__":
    init_trackers("none")
    spawn = multiprocessing.get_context("spawn")
    with Experiment(name="E", par_dir="store").create_run("a") as run:
        queue = spawn.SimpleQueue()
        process = spawn.Process(target=child, args=(queue,))
        process.start()
        print(queue.get(), queue.get(), Experiment.get_current().name)
        process.join()
        sys.exit(process.exitcode)
"""


def test_a_spawned_process_knows_nothing_of_the_run_and_may_start_its_own(
    experiment, tmp_path
):
    path = tmp_path / "spawned.py"
    path.write_text(SPAWNED)

    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, "outside Child E\n"), done.stderr
    assert only_record(experiment).status == "completed"
    child = Experiment(name="Child", par_dir=experiment.par_dir)
    assert only_record(child).status == "completed"


# -- two processes, one run --------------------------------------------------------


def race(body, count=4):
    """Run a script several times at once, released together; return what each said."""
    with contextlib.ExitStack() as stack:
        racers = [stack.enter_context(script(body)) for _ in range(count)]
        for racer in racers:
            wait_until_ready(racer)
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        said = [racer.stdout.readline().strip() for racer in racers]
        for racer in racers:
            racer.communicate("stop\n", timeout=60)
    return sorted(said)


RACE = """
ready()
sys.stdin.readline()
try:
    run = experiment.create_run("a", resume={resume!r}).start()
except Exception as err:
    print(type(err).__name__, flush=True)
else:
    print("won", flush=True)
    sys.stdin.readline()
    run.stop()
"""


def test_of_several_processes_that_create_a_run_one_wins(experiment):
    said = race(RACE.format(resume=False))

    assert said.count("won") == 1
    assert set(said) <= {"won", "RunExistsError", "RunHeldError"}
    record = only_record(experiment)
    assert (record.status, record.attempt) == ("completed", 1)


def test_of_several_processes_that_resume_a_run_one_wins(experiment):
    with experiment.create_run("a"):
        pass

    said = race(RACE.format(resume=True))

    assert said == ["RunHeldError"] * 3 + ["won"]
    record = only_record(experiment)
    assert (record.status, record.attempt) == ("completed", 2)


def test_several_processes_without_an_id_get_a_run_each(experiment):
    said = race(RACE.replace('"a", resume={resume!r}', ""))

    assert said == ["won"] * 4
    assert len(experiment.previous_runs) == 4


# -- disks -------------------------------------------------------------------------


@POSIX
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="not root")
def test_a_folder_of_somebody_else_is_an_error_that_names_the_remedies(tmp_path):
    tmp_path.chmod(0o755)
    code, output, errors = run_script(
        """
        os.setgid(65534)
        os.setuid(65534)
        try:
            experiment.create_run()
        except OSError as err:
            print(type(err).__name__, "record=False" in str(err))
        experiment.trackers.remove_all()
        with experiment.create_run(record=False) as run:
            pass
        print(run.status)
        """
    )

    assert (code, output) == (0, "StorageError True\ncompleted\n"), errors
    assert [path.name for path in tmp_path.iterdir()] == []


@POSIX
def test_a_disk_that_fills_up_during_the_run_costs_the_record_and_not_the_run(
    experiment,
):
    code, output, errors = run_script(
        """
        import resource, warnings
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        experiment.trackers.remove_all()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with experiment.create_run("a") as run:
                run._keeper.stop()
                _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
                publish()
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        print(run.status, {w.category.__name__ for w in caught})
        print("File too large" in str(caught[0].message))
        """
    )

    assert (code, output) == (0, "completed {'RecordWarning'}\nTrue\n"), errors
    assert only_record(experiment).status == "crashed"  # as last written
    assert list(experiment.par_dir.rglob(".record*")) == []


@POSIX
def test_a_disk_that_is_full_from_the_start_refuses_the_run(experiment):
    code, output, errors = run_script(
        """
        import resource
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        run = experiment.create_run("a")
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
        try:
            run.start()
        except OSError as err:
            print(type(err).__name__, run.status)
        """
    )

    assert (code, output) == (0, "StorageError created\n"), errors
    assert events() == []


def test_records_are_found_by_a_process_with_another_working_directory(
    experiment, tmp_path
):
    run_script("with experiment.create_run('a'): pass")

    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, drytrack; drytrack.init_trackers('none'); "
            "e = drytrack.Experiment(name='E', par_dir=sys.argv[1]); "
            "print([r.id for r in e.previous_runs])",
            str(tmp_path / "store"),
        ],
        cwd="/" if os.name == "posix" else None,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "['a']\n"


def test_the_record_tells_command_process_and_python(experiment):
    run_script("with experiment.create_run('a'): pass", "--token=hunter2", "--lr=0.1")

    record = only_record(experiment)
    text = json.dumps(record.data["attempts"][0]["environment"])
    assert "--lr=0.1" in text
    assert "hunter2" not in text
    assert sys.version.split()[0] in text


def test_sigterm_during_the_end_of_a_run_lets_it_end(tmp_path):
    script = """
import os, signal, sys, time
import drytrack
from drytrack import Experiment, Tracker
from drytrack.core import log_events

class SlowToLeave(Tracker):
    def clean_up(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        print("cleaned up", flush=True)

drytrack.init_trackers("none")
experiment = Experiment(None, name="Ends", par_dir=sys.argv[1])
experiment.trackers.subscribe(SlowToLeave())
with experiment.create_run("run"):
    pass
print("not reached")
"""
    child = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert child.stdout == "cleaned up\n"
    assert child.returncode == 128 + signal.SIGTERM
    folder = tmp_path / ".drytrack" / "Ends" / "run"
    assert json.loads((folder / "record.json").read_text())["status"] == "completed"
