"""The installed command, in processes and a terminal of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

LIVE_RUN = """
import sys, time, drytrack
from drytrack.core import log_events
drytrack.init_trackers("none")
experiment = drytrack.Experiment(name="E", par_dir=sys.argv[1])
with experiment.create_run("live"):
    for step in range(1, 10_000):
        log_events.StepMetricEvent("t", step, {"loss": 1 / step})
        if step == 5:
            print("on", flush=True)
        if step >= 5:
            time.sleep(0.05)
"""


def drytrack(*args, folder, **options):
    return subprocess.run(
        [sys.executable, "-m", "drytrack.cli", *args, "--dir", str(folder)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        check=False,
        **options,
    )


@pytest.fixture
def live(tmp_path):
    """Run an experiment in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", LIVE_RUN, str(tmp_path)], stdout=subprocess.PIPE
    )
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_exit_codes_tell_what_happened(tmp_path, live):
    assert drytrack("runs", folder=tmp_path).returncode == 0
    assert drytrack("show", "absent", folder=tmp_path).returncode == 2
    assert drytrack("runs", "--bogus", folder=tmp_path).returncode == 2
    refused = drytrack("delete", "live", "--yes", folder=tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("Error: Run 'live' of experiment 'E' is held by")


def test_a_missing_package_is_one_line_and_a_usage_error(tmp_path):
    code = (
        "import sys, importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name: None if name == 'click' else find(name)\n"
        "from drytrack.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 2
    assert done.stderr == (
        'drytrack: the command line needs click: pip install "drytrack[cli]"\n'
    )


def test_tail_follows_a_run_until_it_ends(tmp_path, live):
    tail = subprocess.Popen(
        [sys.executable, "-m", "drytrack.cli", "tail", "last", "-n", "2", "--json"],
        stdout=subprocess.PIPE,
        env={**os.environ, "DRYTRACK_DIR": str(tmp_path)},
    )
    first = [json.loads(tail.stdout.readline()) for _ in range(10)]
    live.send_signal(signal.SIGTERM)
    rest, _ = tail.communicate(timeout=20)

    seqs = [event["seq"] for event in first]
    assert seqs == list(range(seqs[0], seqs[0] + 10))
    last = json.loads(rest.splitlines()[-1])
    assert last["type"] == "StopExperimentEvent"
    assert last["fields"]["status"] == "interrupted"
    assert tail.returncode == 0


def test_tail_ends_when_the_run_is_killed(tmp_path, live):
    tail = subprocess.Popen(
        [sys.executable, "-m", "drytrack.cli", "tail", "live", "--dir", str(tmp_path)],
        stdout=subprocess.PIPE,
    )
    tail.stdout.readline()
    live.kill()
    live.wait()

    tail.communicate(timeout=20)

    assert tail.returncode == 0
    assert "crashed" in drytrack("runs", folder=tmp_path).stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for others")
def test_ctrl_c_ends_tail_at_once(tmp_path, live):
    tail = subprocess.Popen(
        [sys.executable, "-m", "drytrack.cli", "tail", "live", "--dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    tail.stdout.readline()
    tail.send_signal(signal.SIGINT)

    _, stderr = tail.communicate(timeout=20)

    assert (tail.returncode, stderr) == (130, b"")


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_a_terminal(tmp_path, width):
    code = (
        "import sys, drytrack\n"
        "from drytrack.core import log_events\n"
        "drytrack.init_trackers('none')\n"
        "experiment = drytrack.Experiment({'path': 'x' * 150}, name='Experiment',\n"
        "    par_dir=sys.argv[1], tags=['a-long-tag', 'another-long-tag', 'third'])\n"
        "for _ in range(2):\n"
        "    with experiment.create_run():\n"
        "        for epoch in range(30):\n"
        "            log_events.MetricEvent('resnet50-backbone', 'validation', epoch,\n"
        "                {'val/accuracy@top5': epoch / 31, 'loss': 1.23e-5 * epoch})\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    command = f"{sys.executable} -m drytrack.cli"
    script = tmp_path / "look.sh"
    script.write_text(
        f"export DRYTRACK_DIR={tmp_path}\nclear\n"
        f"{command} runs --show loss\n{command} metrics last\n"
        f"{command} show last > /dev/null\necho over\nsleep 60\n"
    )
    server = ["tmux", "-L", f"drytrack-{os.getpid()}-{width}"]
    size = ["-x", str(width), "-y", "50"]
    try:
        subprocess.run(
            [*server, "new-session", "-d", *size, f"bash {script}"], check=True
        )
        deadline = time.monotonic() + 60
        screen = ""
        while "over" not in screen and time.monotonic() < deadline:
            time.sleep(0.2)
            screen = subprocess.run(
                [*server, "capture-pane", "-p"], capture_output=True, text=True
            ).stdout
    finally:
        subprocess.run([*server, "kill-server"], check=False)

    lines = screen.splitlines()
    listed = [line for line in lines if "completed" in line]
    assert len(listed) == 2
    assert all(line.rstrip().endswith("0.0003567") for line in listed)
    curves = [line for line in lines if "▁" in line]
    assert [line.split()[0] for line in curves] == ["val/accuracy@top5", "loss"]
    assert all(line.rstrip().endswith("█") for line in curves)
    assert "…" not in screen


def test_an_output_that_lacks_letters_loses_no_data(tmp_path):
    code = (
        "import sys, drytrack\n"
        "from drytrack.core import log_events\n"
        "drytrack.init_trackers('none')\n"
        "experiment = drytrack.Experiment(name='E', par_dir=sys.argv[1])\n"
        "with experiment.create_run('a') as run:\n"
        "    log_events.MetricEvent('m', 't', 1, {'\u640d\u5931': 0.5})\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)

    def ask(*args):
        done = subprocess.run(
            [sys.executable, "-m", "drytrack.cli", *args, "--dir", str(tmp_path)],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "cp1252"},
            check=True,
        )
        return done.stdout

    ask("goal", "E", "\u640d\u5931", "lower")
    assert b"?? ?" in ask("metrics", "a")
    assert b"??" in ask("plot", "a")
    assert b"??=0.5" in ask("tail", "a")
    assert json.loads(ask("metrics", "a", "--json"))[0]["metric"] == "\u640d\u5931"
    lines = ask("tail", "a", "--json").splitlines()
    assert json.loads(lines[1])["fields"]["metrics"] == {"\u640d\u5931": 0.5}
    assert "\u640d\u5931" in ask("export", "a").decode("utf-8")
    assert b" bytes, now " in ask("compact", "a")


def test_colours_are_left_out_where_nobody_wants_them(tmp_path, live):
    env = {**os.environ, "FORCE_COLOR": "1", "DRYTRACK_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "drytrack.cli", "runs"]

    coloured = subprocess.run(command, env=env, capture_output=True).stdout
    env["NO_COLOR"] = "1"
    plain = subprocess.run(command, env=env, capture_output=True).stdout

    assert b"\x1b[36m" in coloured
    assert b"\x1b[36m" not in plain
