from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import drytrack
from drytrack.core import _process
from drytrack.core._process import ProcessId, is_alive, this_process

ROOT = Path(drytrack.__path__[0]).parent
REPORT = (
    "import json, sys; from drytrack.core._process import is_alive, this_process;"
    "t = this_process(); report = {**t.to_dict(), 'alive': is_alive(t)};"
    "print(json.dumps(report), flush=True); sys.stdin.read()"
)
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
FORK = "ignore:.*multi-threaded.*fork:DeprecationWarning"
on_posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
texts = st.none() | st.text(max_size=20)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    process = start_child()
    yield process
    process.kill()
    process.communicate()


def start_child(*prefix: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", REPORT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def read_report(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def read_id(process: subprocess.Popen[str]) -> ProcessId:
    return ProcessId.from_dict(read_report(process))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_own_process_is_alive():
    process = this_process()

    assert process.pid == os.getpid()
    assert process.started_at is not None
    assert is_alive(process) is True


def test_a_running_child_is_alive_and_reports_what_its_parent_sees(child):
    process = read_id(child)

    assert process.pid == child.pid
    assert process.started_at != this_process().started_at
    assert is_alive(process) is True


def test_a_killed_child_is_dead_once_it_is_reaped(child):
    process = read_id(child)

    child.kill()
    child.communicate()

    assert is_alive(process) is False


@on_posix
def test_a_zombie_is_dead_before_it_is_reaped(child):
    process = read_id(child)

    child.send_signal(signal.SIGKILL)
    # The pipe ends with the process; nobody has waited for it yet.
    wait_until(lambda: is_alive(process) is False)

    assert child.returncode is None
    os.kill(process.pid, 0)


@on_posix
def test_a_stopped_child_is_alive(child):
    process = read_id(child)

    child.send_signal(signal.SIGSTOP)

    assert is_alive(process) is True


def test_a_process_id_that_was_given_to_another_process_is_dead(child):
    process = dataclasses.replace(read_id(child), started_at="1")

    assert is_alive(process) is False


def test_without_a_start_time_a_living_process_id_proves_nothing(child):
    process = dataclasses.replace(read_id(child), started_at=None)

    assert is_alive(process) is None


def test_a_process_of_another_host_cannot_be_known():
    process = dataclasses.replace(
        this_process(), host="elsewhere", boot_id="another", machine_id="another"
    )

    assert is_alive(process) is None


@on_linux
def test_a_process_of_the_same_system_under_another_boot_is_dead(monkeypatch):
    identify_machine(monkeypatch)
    process = dataclasses.replace(this_process(), boot_id="another")

    assert process.machine_id == "a" * 32
    assert is_alive(process) is False


@on_linux
def test_a_container_elsewhere_with_the_same_host_name_cannot_be_known(monkeypatch):
    identify_machine(monkeypatch)
    process = dataclasses.replace(this_process(), boot_id="another", machine_id=None)

    assert is_alive(process) is None


@on_linux
def test_another_boot_of_a_machine_without_id_cannot_be_known(monkeypatch):
    monkeypatch.setattr(_process, "_MACHINE_ID_FILES", ())
    process = dataclasses.replace(this_process(), boot_id="another")

    assert process.machine_id is None
    assert is_alive(process) is None


@on_linux
def test_a_container_does_not_trust_the_machine_id_of_its_image(monkeypatch, tmp_path):
    identify_machine(monkeypatch)
    monkeypatch.setattr(_process, "_CONTAINER_MARKS", (tmp_path,))

    assert this_process().machine_id is None


@on_linux
def test_a_process_in_another_container_of_this_machine_cannot_be_known():
    process = dataclasses.replace(this_process(), pid_namespace="pid:[1]")

    assert is_alive(process) is None


@on_linux
def test_a_machine_that_was_renamed_still_knows_its_processes(monkeypatch):
    identify_machine(monkeypatch)
    process = dataclasses.replace(this_process(), host="old-name")

    assert is_alive(process) is True


@on_linux
def test_a_copy_of_this_machine_without_id_under_another_name_cannot_be_known(
    monkeypatch,
):
    monkeypatch.setattr(_process, "_MACHINE_ID_FILES", ())
    process = dataclasses.replace(this_process(), host="copy")

    assert is_alive(process) is None


@on_linux
@pytest.mark.parametrize(
    ("flags", "seen_by_itself"),
    [
        (["--pid", "--mount-proc"], True),
        # Here /proc numbers the processes outside, so that it tells nothing.
        (["--pid"], None),
    ],
)
def test_a_process_in_a_real_pid_namespace_cannot_be_known_from_outside(
    flags, seen_by_itself
):
    command = ["unshare", "--fork", "--kill-child", *flags]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"]).returncode:
        pytest.skip("not allowed to make a namespace")

    process = start_child(*command)
    report = read_report(process)
    identity = ProcessId.from_dict(report)
    seen_from_outside = is_alive(identity)
    process.communicate("")

    assert identity.pid == 1
    assert report["alive"] is seen_by_itself
    assert identity.started_at is not None
    assert identity.pid_namespace != this_process().pid_namespace
    assert seen_from_outside is None


def fork_and_identify(pipe) -> None:
    process = this_process()
    pipe.send((process, is_alive(process)))


@on_posix
@pytest.mark.filterwarnings(FORK)  # pytest-timeout and xdist have threads
def test_a_forked_child_is_a_process_of_its_own():
    parent = this_process()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    forked = context.Process(target=fork_and_identify, args=(sender,))
    forked.start()
    identity, alive_inside = receiver.recv()
    forked.join()

    assert identity.pid == forked.pid
    assert identity != parent
    assert alive_inside is True
    assert is_alive(identity) is False


@on_linux
def test_a_program_name_with_spaces_and_parentheses_is_read_over(tmp_path):
    program = tmp_path / "a) Z (b"
    program.symlink_to(shutil.which("sleep") or "sleep")
    with subprocess.Popen([program, "60"]) as process:
        found = _process._look_up(process.pid)
        process.kill()

    assert found is not None
    assert found.zombie is False
    assert found.started_at is not None
    assert found.started_at.isdigit()


@on_posix
@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps")
def test_ps_tells_the_same_start_in_every_language_and_time_zone(child, monkeypatch):
    read_id(child)
    first = _process._look_up_with_ps(child.pid)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")

    second = _process._look_up_with_ps(child.pid)

    assert first is not None
    assert first.started_at
    assert not first.zombie
    assert second == first


@on_posix
@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps")
def test_ps_knows_zombies_and_the_dead(child):
    read_id(child)
    child.kill()

    def is_zombie() -> bool:
        found = _process._look_up_with_ps(child.pid)
        return found is not None and found.zombie

    wait_until(is_zombie)
    child.communicate()

    assert _process._look_up_with_ps(child.pid) is None


@given(
    st.builds(
        ProcessId,
        pid=st.integers(1, 2**32 - 1),
        started_at=texts,
        boot_id=texts,
        host=st.text(max_size=20),
        machine_id=texts,
        pid_namespace=texts,
    )
)
def test_any_identity_survives_json(process):
    data = json.loads(json.dumps(process.to_dict()))

    assert ProcessId.from_dict(data) == process


@given(st.integers(1, 2**32 - 1))
def test_any_possible_process_id_can_be_asked_for(pid):
    process = dataclasses.replace(this_process(), pid=pid, started_at="never")

    assert is_alive(process) is not True


def test_fields_of_newer_versions_are_ignored_and_missing_ones_unknown():
    process = ProcessId.from_dict({"pid": 7, "host": "h", "cgroup": "/x"})

    assert process == ProcessId(pid=7, started_at=None, boot_id=None, host="h")


@pytest.mark.parametrize(
    "change",
    [
        {"pid": None},
        {"pid": "7"},
        {"pid": True},
        {"pid": 7.0},
        {"pid": 0},
        {"pid": -1},
        {"pid": 2**32},
        {"host": None},
        {"started_at": 5},
        {"boot_id": []},
        {"machine_id": {}},
        {"pid_namespace": 4},
    ],
)
def test_a_field_that_cannot_be_is_refused_by_name(change):
    data = {"pid": 7, "host": "h", **change}

    named = rf"process (id|field '{next(iter(change))}') must be "
    with pytest.raises(ValueError, match=named):
        ProcessId.from_dict(data)


def identify_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this a machine with an id, also where the tests run in a container."""
    path = Path("machine-id").absolute()
    path.write_text("a" * 32 + "\n", encoding="ascii")
    monkeypatch.setattr(_process, "_MACHINE_ID_FILES", (path,))
    monkeypatch.setattr(_process, "_CONTAINER_MARKS", ())
    namespace = str(Path("/proc/self/ns/pid").readlink())
    monkeypatch.setattr(_process, "INITIAL_PID_NAMESPACE", namespace)
