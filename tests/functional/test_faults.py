"""Real faults: full and read-only disks, dead backends, odd ends, other processes."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from drytrack import Experiment, Tracker
from drytrack.core import log_events
from drytrack.core._record import read_record
from drytrack.core.exceptions import StorageError
from drytrack.core.journal import JournalReader

pytestmark = pytest.mark.usefixtures("no_default_trackers")

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")

# What every script begins with: numbered events, and trackers that keep them in files.
PREAMBLE = """
import contextlib, os, pathlib, signal, sys, threading, time, warnings
from drytrack import Experiment, Tracker, TrainingLoop, init_trackers
from drytrack.core import log_events
from drytrack.core._record import read_record
from drytrack.core.journal import JournalReader
from drytrack.delivery import Background, Inline, Required, Sampled

class Lines(Tracker):
    notify = Tracker.notify.extend()

    @notify.register
    def _start(self, event: log_events.StartExperimentEvent) -> None:
        file = pathlib.Path(f"{self.name}.txt").open("ab", buffering=0)
        self._file = self.enter_context(file)

    @notify.register
    def _write(self, event: log_events.StepMetricEvent) -> None:
        self.check(event)
        self._file.write(b"%d\\n" % event.step)

    def check(self, event):
        pass

def publish(first, last=None):
    for number in range(first, (last or first) + 1):
        log_events.StepMetricEvent("s", number, {"loss": number / 7})

def steps_of(path):
    return [e.step for e in JournalReader(path) if hasattr(e, "step")]

def ready():
    print("ready", flush=True)

def fill(disk):
    with open(f"{disk}/ballast", "wb", buffering=0) as file:
        with contextlib.suppress(OSError):  # that is when it is full
            while file.write(bytes(1000)):
                pass

@contextlib.contextmanager
def run_whose_disk_fills(disk):
    experiment = make(disk)
    experiment.trackers.subscribe(Background(Lines()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with experiment.create_run("a") as run:
            publish(1, 100)
            fill(disk)
            publish(101, 5000)
            yield run, caught

def make(par_dir="store"):
    init_trackers("none")
    return Experiment({"lr": 0.1}, name="E", par_dir=par_dir)
"""


@contextlib.contextmanager
def script(body, **environment):
    """Start a script of its own in the working directory."""
    path = pathlib.Path("script.py")
    path.write_text(PREAMBLE + textwrap.dedent(body))
    process = subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    with process:
        try:
            yield process
        except BaseException:
            process.kill()  # or leaving would wait for it
            raise


def run_script(body, *, code=0, timeout=60, **environment):
    """Run a script to its end; return what it printed."""
    with script(body, **environment) as process:
        output, errors = process.communicate(timeout=timeout)
    assert process.returncode == code, errors
    return output, errors


def wait_until_ready(process):
    assert process.stdout.readline() == "ready\n", process.stderr.read()


def folder(run_id="a"):
    return pathlib.Path("store", ".drytrack", "E", run_id)


def journaled(run_id="a"):
    """Return the steps in the journal of a run."""
    reader = JournalReader(folder(run_id))
    return [event.step for event in reader if hasattr(event, "step")]


def written(name):
    return [int(line) for line in pathlib.Path(f"{name}.txt").read_text().split()]


# -- how a run ends ----------------------------------------------------------------

ENDS = {
    "exception": ("raise ValueError('x')", "failed", 1),
    "exit": ("sys.exit(3)", "failed", 3),
    "no clean-up": ("os._exit(9)", "crashed", 9),
    "exit in a thread": (
        "t = threading.Thread(target=sys.exit); t.start(); t.join()",
        "completed",
        0,
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_however_a_run_ends_its_events_are_kept_and_its_status_is_right(end):
    line, status, code = ENDS[end]
    began = time.monotonic()
    run_script(
        f"""
        class Slow(Lines):
            def check(self, event):
                time.sleep(0.002)

        experiment = make()
        experiment.trackers.subscribe(Background(Slow()))
        with experiment.create_run("a"):
            publish(1, 100)
            {line}
        """,
        code=code,
    )

    assert time.monotonic() - began < 10
    assert read_record(folder()).status == status
    assert journaled() == list(range(1, 101))
    if status != "crashed":
        assert written("Slow") == list(range(1, 101))


@POSIX
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_in_time_though_a_tracker_is_stuck(how):
    with script(
        """
        stuck = threading.Event()

        class Stuck(Lines):
            def check(self, event):
                stuck.set()
                time.sleep(600)

        experiment = make()
        experiment.trackers.subscribe(Background(Stuck()), Background(Lines()))
        with experiment.create_run("a"):
            publish(1, 100)
            stuck.wait(60)
            ready()
            while True:  # a signal may come just before a sleep, and be heard after
                time.sleep(0.01)
        """,
        DRYTRACK_EXIT_TIMEOUT_S="2",
    ) as process:
        wait_until_ready(process)
        began = time.monotonic()
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)

    assert time.monotonic() - began < 10
    assert process.returncode in (143, -signal.SIGINT, 130)
    assert "Tracker 'Stuck' has missed 101 events. The journal has them" in errors
    assert "drytrack replay" in errors
    assert read_record(folder()).status == "interrupted"
    assert journaled() == list(range(1, 101))
    assert written("Lines") == list(range(1, 101))


@POSIX
def test_without_a_setting_an_interrupted_run_waits_ten_seconds_at_the_most():
    output, _ = run_script(
        """
        from drytrack.core import _outcome
        print([_outcome.exit_timeout_s(how) for how in ("interrupted", "completed")])
        """
    )

    assert output == "[10.0, 60.0]\n"


# -- disks -------------------------------------------------------------------------


@POSIX
def test_a_file_size_limit_stops_nothing_and_loses_nothing_once_it_is_lifted():
    output, _ = run_script(
        """
        import resource
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        experiment = make()
        experiment.trackers.subscribe(Background(Lines()))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with experiment.create_run("a") as run:
                publish(1, 100)
                size = run.bus.journal.size
                limits = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, limits[1]))
                publish(101, 3000)  # so that the tracker's own file stays below
                held = len(steps_of(run.path))
                print(100 < held < 110, run.bus.journal.incomplete_from == held + 2)
                run.check_in(1)
                said = read_record(run.path).data["journal"]["incomplete_from"]
                print(said == held + 2)
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
                time.sleep(0.3)
                publish(3001, 3010)
        said = read_record(run.path).data["journal"]
        print(said["incomplete_from"], said["missing"], run.status)
        print([entry.category.__name__ for entry in caught])
        print("Free some." in str(caught[0].message))
        """
    )

    assert output.splitlines() == [
        "True True",
        "True",
        "None [] completed",
        "['RecordWarning']",
        "True",
    ]
    assert journaled() == written("Lines") == list(range(1, 3011))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB, where the machine allows to mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount here")
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_stops_nothing_and_loses_nothing_once_there_is_room(small_disk):
    output, _ = run_script(
        f"""
        with run_whose_disk_fills({str(small_disk)!r}) as (run, caught):
            held = len(steps_of(run.path))
            print(100 <= held < 200, run.bus.journal.incomplete_from == held + 2)
            os.unlink({str(small_disk / "ballast")!r})
            time.sleep(0.3)
            publish(5001, 5010)
        said = read_record(run.path).data["journal"]
        print(said["incomplete_from"], said["missing"], run.status)
        print(steps_of(run.path) == list(range(1, 5011)))
        print([entry.category.__name__ for entry in caught])
        """
    )

    assert output.splitlines() == [
        "True True",
        "None [] completed",
        "True",
        "['RecordWarning']",
    ]
    assert written("Lines") == list(range(1, 5011))


def test_a_disk_that_stays_full_costs_what_does_not_fit_and_says_so(small_disk):
    output, _ = run_script(
        f"""
        with run_whose_disk_fills({str(small_disk)!r}) as (run, caught):
            run.check_in(60)
            fill({str(small_disk)!r})  # whatever the check-in has left
        held = steps_of(run.path)
        print(held == list(range(1, len(held) + 1)), len(held) >= 100, run.status)
        print({{entry.category.__name__ for entry in caught}}, len(caught))
        """
    )
    record = read_record(small_disk / ".drytrack" / "E" / "a")
    assert record.status == "completed"
    assert record.data["journal"]["incomplete_from"] > 100

    assert output.splitlines() == ["True True completed", "{'RecordWarning'} 1"]
    assert written("Lines") == list(range(1, 5001))


def test_a_run_starts_and_ends_on_a_disk_that_is_full_from_the_first_event(small_disk):
    output, _ = run_script(
        f"""
        experiment = make({str(small_disk)!r})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run = experiment.create_run("a")
            fill({str(small_disk)!r})
            try:
                with run:
                    publish(1, 100)
            except OSError as error:
                print(type(error).__name__, "DRYTRACK_DIR" in str(error))
            else:
                print("went on", len(caught) >= 1)
        """
    )

    assert output in ("StorageError True\n", "went on True\n")


def test_a_folder_that_cannot_be_written_is_one_clear_error_at_once(tmp_path):
    place = tmp_path / "readonly"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(place)]
    mounted = False
    if os.name == "posix" and os.geteuid() != 0:
        place.chmod(0o500)
    else:
        with contextlib.suppress(FileNotFoundError):  # no mount here
            done = subprocess.run(command, capture_output=True, check=False)
            mounted = done.returncode == 0
        if not mounted:
            pytest.skip("every folder can be written by this user")
    try:
        began = time.monotonic()
        with pytest.raises(StorageError, match="cannot be written") as caught:
            Experiment(name="E", par_dir=place).create_run()
        assert time.monotonic() - began < 10
        assert "create_run(record=False)" in str(caught.value)
        with Experiment(name="E", par_dir=place).create_run(record=False) as run:
            log_events.StepMetricEvent("s", 1, {"loss": 0.5})
        assert run.status == "completed"
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


# -- backends ----------------------------------------------------------------------


def test_a_server_that_never_answers_costs_the_run_nothing_but_its_deadline():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        began = time.monotonic()
        _, errors = run_script(
            f"""
            import socket

            class Remote(Lines):
                def check(self, event):
                    with socket.create_connection(("127.0.0.1", {port})) as line:
                        line.recv(1)  # for ever

            experiment = make()
            experiment.trackers.subscribe(Background(Remote()))
            with experiment.create_run("a"):
                publish(1, 10_000)
            """,
            DRYTRACK_EXIT_TIMEOUT_S="1",
        )

    assert time.monotonic() - began < 30
    assert "Tracker 'Remote' has missed 10001 events" in errors
    assert journaled() == list(range(1, 10_001))
    assert read_record(folder()).status == "completed"
    assert read_record(folder()).data["trackers"]["Remote"]["cursor"] == 1


def test_a_backend_that_was_down_gets_everything_when_the_run_is_resumed():
    script_of = """
        class Remote(Lines):
            def check(self, event):
                if not os.path.exists("up"):
                    raise ConnectionError("refused")

        experiment = make()
        experiment.trackers.subscribe(Background(Remote()))
        with experiment.create_run("a", resume="auto") as run:
            publish({first}, {last})
        """
    _, errors = run_script(script_of.format(first=1, last=100))
    assert "Tracker 'Remote' failed on StepMetricEvent (step 1)" in errors
    assert "Tracker 'Remote' has missed" in errors
    assert written("Remote") == []

    pathlib.Path("up").touch()
    _, errors = run_script(script_of.format(first=101, last=200))

    assert errors == ""
    assert written("Remote") == journaled() == list(range(1, 201))


def test_a_tracker_that_always_raises_costs_others_and_the_run_nothing():
    _, errors = run_script(
        """
        class Broken(Lines):
            def check(self, event):
                raise OSError("no")

        experiment = make()
        experiment.trackers.subscribe(
            Broken(), behind=Background(Broken()), beside=Background(Lines())
        )
        with experiment.create_run("a"):
            publish(1, 1000)
        """,
        DRYTRACK_EXIT_TIMEOUT_S="2",
    )

    assert journaled() == list(range(1, 1001))
    assert "Tracker 'Broken' has missed" in errors
    assert "Tracker 'behind' has missed" in errors
    assert written("Lines") == list(range(1, 1001))


def test_a_cpu_bound_background_tracker_delays_but_loses_nothing():
    run_script(
        """
        class Busy(Lines):
            def check(self, event):
                sum(range(20_000))

        experiment = make()
        experiment.trackers.subscribe(Background(Busy()))
        with experiment.create_run("a"):
            publish(1, 2000)
        """
    )

    assert written("Busy") == journaled() == list(range(1, 2001))


# -- other processes and threads ---------------------------------------------------

CHILDREN = """
import multiprocessing

class InlineLines(Lines):
    name = "Inline"

def child(number):
    try:
        publish(1_000_000 + number)
    except RuntimeError as error:
        os.write(1, f"{{type(error).__name__}}\\n".encode())

def main():
    experiment = make()
    experiment.trackers.subscribe(Background(Lines()), InlineLines())
    with experiment.create_run("a") as run:
        publish(1, 50)
        context = multiprocessing.get_context({method!r})
        children = [context.Process(target=child, args=(n,)) for n in range(3)]
        for process in children:
            process.start()
        publish(51, 100)
        for process in children:
            process.join()
        assert [process.exitcode for process in children] == [0, 0, 0]
        publish(101, 150)

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_child_processes_leave_the_journal_to_their_parent(method):
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    output, _ = run_script(CHILDREN.format(method=method))

    expected = [] if method == "fork" else ["AccessOutsideScopeError"] * 3
    assert output.split() == expected
    assert journaled() == list(range(1, 151))
    assert written("Lines") == written("Inline") == list(range(1, 151))
    reader = JournalReader(folder())
    assert [e.stamp.seq for e in reader] == list(range(1, 153))
    assert reader.damaged == 0
    assert read_record(folder()).status == "completed"


@pytest.mark.torch
@pytest.mark.slow
def test_the_workers_of_a_data_loader_leave_the_journal_alone():
    run_script(
        """
        import torch

        class Squares(torch.utils.data.Dataset):
            def __len__(self):
                return 64
            def __getitem__(self, index):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # no run is here
                    publish(1_000_000 + index)  # in a worker: dropped
                return torch.tensor(float(index))

        def main():
            experiment = make()
            experiment.trackers.subscribe(Background(Lines()))
            with experiment.create_run("a") as run:
                net = run.register_model(object(), "net")
                loop = TrainingLoop(net, name="trainer")
                loader = torch.utils.data.DataLoader(
                    Squares(), batch_size=8, num_workers=2,
                    multiprocessing_context="fork",
                )
                for epoch in loop.epochs(2):
                    for number, batch in enumerate(loop.batches(loader)):
                        publish(8 * (epoch - 1) + number + 1)

        if __name__ == "__main__":
            main()
        """,
        timeout=110,
    )

    assert journaled() == written("Lines") == list(range(1, 17))
    assert read_record(folder()).status == "completed"


def test_eight_threads_with_ten_thousand_events_each_make_one_order():
    run_script(
        """
        experiment = make()
        experiment.trackers.subscribe(Background(Lines()))
        with experiment.create_run("a"):
            def work(number):
                publish(10_000 * number + 1, 10_000 * (number + 1))
            threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        """,
        timeout=110,
    )

    found = journaled()
    assert sorted(found) == list(range(1, 80_001))
    for number in range(8):
        own = [step for step in found if (step - 1) // 10_000 == number]
        assert own == sorted(own)
    assert [e.stamp.seq for e in JournalReader(folder())] == list(range(1, 80_003))
    assert written("Lines") == found


def test_two_runs_in_two_threads_have_a_journal_each():
    run_script(
        """
        experiment = make()
        meet = threading.Barrier(2)
        def work(name, first):
            with experiment.create_run(name):
                meet.wait(30)
                publish(first, first + 999)
                meet.wait(30)
        threads = [
            threading.Thread(target=work, args=("a", 1)),
            threading.Thread(target=work, args=("b", 1001)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        """
    )

    assert journaled("a") == list(range(1, 1001))
    assert journaled("b") == list(range(1001, 2001))


def test_tasks_of_asyncio_each_write_to_their_own_run():
    run_script(
        """
        import asyncio
        experiment = make()

        async def train(name, first):
            with experiment.create_run(name):
                for number in range(first, first + 100):
                    publish(number)
                    await asyncio.sleep(0)

        async def main():
            await asyncio.gather(train("a", 1), train("b", 101), train("c", 201))

        asyncio.run(main())
        """
    )

    for name, first in (("a", 1), ("b", 101), ("c", 201)):
        assert journaled(name) == list(range(first, first + 100))


# -- what reaches the disk itself --------------------------------------------------


@pytest.mark.parametrize(
    ("durability", "syncs"), [("process", "few"), ("machine", "all")]
)
def test_lines_are_synced_at_edges_or_each_as_was_asked(
    tmp_path, monkeypatch, durability, syncs
):
    synced = []
    real = os.fsync

    def counting(fd):
        synced.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fsync", counting)
    experiment = Experiment(name="E", par_dir=tmp_path)
    with experiment.create_run(durability=durability) as run:
        own = run.bus.journal._fd
        counts = [synced.count(own)]
        for event in (
            lambda: log_events.StepMetricEvent("s", 1, {"loss": 0.5}),
            lambda: log_events.EndEpochEvent("s", "m", 1),
            lambda: log_events.StepMetricEvent("s", 2, {"loss": 0.5}),
            lambda: log_events.SaveModelEvent("m", "weights", "a.pt", 1),
        ):
            event()
            counts.append(synced.count(own))
    counts.append(synced.count(own))

    grown = [after > before for before, after in itertools.pairwise(counts)]
    assert counts[0] >= 1  # the start
    assert grown == [syncs == "all", True, syncs == "all", True, True]


def test_a_diff_of_the_source_is_a_blob_of_the_run(tmp_path, monkeypatch):
    (tmp_path / "repo").mkdir()
    monkeypatch.chdir(tmp_path / "repo")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org"]
    pathlib.Path("train.py").write_text("lr = 1\n")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True)
    pathlib.Path("train.py").write_text("lr = 2\n")

    with Experiment(name="E", par_dir=tmp_path).create_run() as run:
        deadline = time.monotonic() + 60
        while not (run.path / "blobs").exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    git_state = read_record(run.path).data["attempts"][0]["environment"]["git"]
    diff = JournalReader(run.path).get_blob(git_state["diff_blob"])
    assert b"+lr = 2" in diff


def test_a_thread_that_is_left_behind_by_a_run_is_none_of_ours(tmp_path):
    class Idle(Tracker):
        background = True

    experiment = Experiment(name="E", par_dir=tmp_path)
    experiment.trackers.subscribe(Idle())
    before = threading.active_count()
    for _ in range(3):
        with experiment.create_run():
            pass

    assert threading.active_count() == before
