"""What each mode shows: on a terminal, in a file, under Hydra, in a notebook."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from drytrack import modes

if sys.platform != "win32":
    import fcntl
    import pty
    import struct
    import termios

WINDOWS = sys.platform == "win32"
needs_pty = pytest.mark.skipif(WINDOWS, reason="Windows has no such terminals")

TRAINING = """
    import logging, sys, time
    from drytrack import Experiment, TestLoop, TrainingLoop, init_trackers

    class Loader:
        batch_size = 16
        dataset = range(470)

        def __len__(self):
            return 30

        def __iter__(self):
            return iter(range(30))

    init_trackers(sys.argv[1])
    what = sys.argv[2] if len(sys.argv) > 2 else ""
    experiment = Experiment({"lr": 1e-3}, name="Digits")
    with experiment.create_run("first") as run:
        net = object()
        run.register_model(net, "mlp")
        loop = TrainingLoop(net, "trainer", log_every=5)
        test = TestLoop(net, "val", log_every=5)
        for epoch in loop.epochs(2):
            for i in loop.batches(Loader()):
                loop.update(loss=1 / (i + 1), accuracy=i / 30)
                time.sleep(0.01)
                if i == 12:
                    logging.getLogger("drytrack").warning("a line in between")
                    with test:
                        for _ in test.batches(Loader()):
                            test.update(accuracy=0.5)
                        test.log_metrics(accuracy=0.875)
                if i == 20 and what == "raise":
                    raise ArithmeticError("it diverged")
                if i == 20 and what == "hang":
                    print("hanging", flush=True)
                    time.sleep(60)
            loop.log_metrics(loss=0.25, accuracy=0.9 + epoch / 100)
"""

BAR = re.compile(r"[█▏▎▍▌▋▊▉]")


class Screen:
    """A terminal as tqdm and logging use one: no colours, no scrolling."""

    def __init__(self, columns):
        self.columns = columns
        self.rows = [""]
        self.row = self.column = 0
        self.raw = ""

    def feed(self, text):
        self.raw += text
        for part in re.findall(r"\x1b\[A|[\r\n]|[^\r\n\x1b]", text):
            if part == "\x1b[A":
                self.row -= 1
            elif part == "\r":
                self.column = 0
            elif part == "\n":
                self._next_row()
            else:
                self._put(part)

    def _next_row(self):
        self.row += 1
        self.rows += [""] * (self.row + 1 - len(self.rows))

    def _put(self, letter):
        if self.column == self.columns:  # long lines wrap
            self._next_row()
            self.column = 0
        line = self.rows[self.row].ljust(self.column)
        self.rows[self.row] = line[: self.column] + letter + line[self.column + 1 :]
        self.column += 1

    def lines(self):
        return [row.rstrip() for row in self.rows if row.strip()]


def write_script(tmp_path, source=TRAINING):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(source), encoding="utf-8")
    return script


def run_in_terminal(script, *args, columns, interrupt_at=None):
    """Run a script on a pseudo-terminal; return what the terminal shows."""
    master, slave = pty.openpty()
    size = struct.pack("HHHH", 50, columns, 0, 0)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
    # Python 3.13 colours its tracebacks.
    plain = {"PYTHONIOENCODING": "utf-8", "PYTHON_COLORS": "0"}
    env = {**os.environ, "TERM": "xterm", **plain}
    process = subprocess.Popen(
        [sys.executable, str(script), *args],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=script.parent,
        env=env,
    )
    os.close(slave)
    screen, pending = Screen(columns), b""
    with contextlib.suppress(OSError):  # EIO: the other end has been closed
        while chunk := os.read(master, 4096):
            pending += chunk
            text = pending.decode("utf-8", "ignore")
            pending = pending[len(text.encode()) :]
            screen.feed(text)
            if interrupt_at is not None and interrupt_at in screen.raw:
                interrupt_at = None
                time.sleep(0.2)
                process.send_signal(signal.SIGINT)
    os.close(master)
    screen.exit_code = process.wait(timeout=60)
    return screen


def run_in_files(script, *args, mode=None):
    """Run a script with both streams in pipes."""
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    if mode is not None:
        env["DRYTRACK_INIT_MODE"] = mode
    return subprocess.run(
        [sys.executable, str(script), *args],
        capture_output=True,
        encoding="utf-8",
        cwd=script.parent,
        env=env,
        check=False,
        timeout=60,
    )


def untimed(lines):
    return [re.sub(r"^\[\d\d:\d\d:\d\d\] ", "", line) for line in lines]


# -- terminals -------------------------------------------------------------------


@needs_pty
@pytest.mark.parametrize("columns", [60, 80, 120])
def test_standard_leaves_a_bar_for_each_pass_between_whole_lines(tmp_path, columns):
    screen = run_in_terminal(write_script(tmp_path), "standard", columns=columns)

    lines = untimed(screen.lines())
    assert screen.exit_code == 0
    titles = [re.split(r"[ :]", line)[0] for line in lines if BAR.search(line)]
    assert titles == ["val", "trainer", "val", "trainer"]
    assert lines.count("WARNING: a line in between") == 2
    bars = [line for line in lines if BAR.search(line)]
    assert all(len(bar) < columns for bar in bars)
    assert all("100%" in bar for bar in bars)
    assert "accuracy=0.875" in bars[0]
    assert "loss=0.25, accuracy=0.91" in bars[1]
    assert lines[0] == "Digits: run first started."


@needs_pty
def test_a_wide_terminal_shows_rate_and_samples(tmp_path):
    screen = run_in_terminal(write_script(tmp_path), "standard", columns=120)

    trainer = next(x for x in screen.lines() if x.startswith("trainer epoch 1/2"))
    assert re.search(r" 30/30 \[00:0\d<00:00, .*batch.*, 470 samples\]$", trainer)


@needs_pty
@pytest.mark.parametrize("columns", [60, 120])
def test_minimal_leaves_the_training_bar_alone(tmp_path, columns):
    screen = run_in_terminal(write_script(tmp_path), "minimal", columns=columns)

    *told, end, bar = untimed(screen.lines())
    assert told == [
        "trainer trains mlp, epochs 1 to 2.",
        "WARNING: a line in between",
        "WARNING: a line in between",
    ]
    assert end.startswith("trainer ended its training after ")
    assert bar.startswith("trainer: 100%")
    assert "val accuracy=0.875" in bar
    assert "loss=0.25, accuracy=0.92" in bar
    assert len(bar) < columns
    assert not (tmp_path / "yaml").exists()


@needs_pty
def test_hydra_mode_leaves_lines_and_no_bars(tmp_path):
    screen = run_in_terminal(write_script(tmp_path), "hydra", columns=100)

    assert BAR.search(screen.raw)
    lines = untimed(screen.lines())
    assert not [line for line in lines if BAR.search(line)]
    assert "trainer (mlp), epoch 1/2: loss=0.25, accuracy=0.91" in lines
    assert "val (mlp), epoch 1: accuracy=0.875" in lines


@needs_pty
def test_no_mode_is_silent(tmp_path):
    screen = run_in_terminal(write_script(tmp_path), "none", columns=80)

    assert screen.exit_code == 0
    # Warnings of a logger that nobody has set up are Python's to show.
    assert set(screen.lines()) == {"a line in between"}


@needs_pty
@pytest.mark.parametrize("mode", ["standard", "minimal"])
def test_bars_are_closed_before_the_traceback_of_a_failed_run(tmp_path, mode):
    script = write_script(tmp_path)
    screen = run_in_terminal(script, mode, "raise", columns=100)

    lines = untimed(screen.lines())
    traceback = lines.index("Traceback (most recent call last):")
    assert lines[-1] == "ArithmeticError: it diverged"
    assert not [line for line in lines[traceback:] if BAR.search(line)]
    assert not [x for x in lines if BAR.search(x) and "WARNING" in x]
    assert "Go on with create_run('first', resume=True)." in lines[:traceback]


@needs_pty
def test_an_interrupted_run_closes_its_bars_and_says_how_to_go_on(tmp_path):
    script = write_script(tmp_path)
    screen = run_in_terminal(
        script, "standard", "hang", columns=100, interrupt_at="hanging"
    )

    lines = untimed(screen.lines())
    assert any("run first interrupted after " in line for line in lines)
    assert "Go on with create_run('first', resume=True)." in lines
    assert lines[-1] == "KeyboardInterrupt"


@needs_pty
def test_a_terminal_without_a_size_shows_bars_all_the_same(tmp_path):
    screen = run_in_terminal(write_script(tmp_path), "standard", columns=0)

    assert "trainer epoch 2/2: 100%|" in screen.raw


@needs_pty
def test_a_forked_child_leaves_the_bars_of_its_parent_alone(tmp_path):
    script = write_script(
        tmp_path,
        """
        import os, sys
        from drytrack import Experiment, TestLoop
        with Experiment(name="Digits").create_run(record=False) as run:
            run.register_model("net", "mlp")
            loop = TestLoop("mlp", "val")
            for i in loop.batches(range(20)):
                loop.update(accuracy=0.5)
                if i == 15:
                    child = os.fork()
                    if child == 0:
                        sys.exit()
                    os.waitpid(child, 0)
        """,
    )
    screen = run_in_terminal(script, columns=80)

    assert len([line for line in screen.lines() if line.startswith("val:")]) == 1


# -- files -----------------------------------------------------------------------


def test_a_redirected_standard_error_gets_whole_lines_alone(tmp_path):
    done = run_in_files(write_script(tmp_path), "standard")

    assert done.returncode == 0
    assert done.stdout == ""
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr
    passes = [line for line in done.stderr.splitlines() if "batches" in line]
    assert len(passes) == 4
    pattern = (
        r"trainer epoch 1/2: 30/30 batches, loss=0.25, accuracy=0.91, .* samples/s"
    )
    assert re.fullmatch(pattern, passes[1])


@pytest.mark.parametrize("mode", ["standard", "minimal", "none"])
def test_nothing_goes_to_standard_output_unless_the_mode_says_so(tmp_path, mode):
    done = run_in_files(write_script(tmp_path), mode)

    assert done.stdout == ""


def test_hydra_mode_without_hydra_writes_to_standard_output(tmp_path):
    done = run_in_files(write_script(tmp_path), "hydra")

    told = untimed(done.stdout.splitlines())
    assert told[0] == "Digits: run first started."
    assert told.count("trainer (mlp), epoch 2/2: loss=0.25, accuracy=0.92") == 1
    assert done.stderr == ""


# -- Hydra -----------------------------------------------------------------------

HYDRA_APP = """
    import logging
    import hydra
    from drytrack import Experiment, TrainingLoop

    @hydra.main(version_base=None, config_path=None)
    def main(config):
        logging.getLogger(__name__).info("a line of the user's")
        with Experiment(config, name="Digits").create_run() as run:
            run.register_model("net", "mlp")
            loop = TrainingLoop("mlp", "trainer")
            for epoch in loop.epochs(2):
                for _ in loop.batches(range(20)):
                    loop.update(loss=0.5)
                loop.log_metrics(loss=0.25)

    main()
"""


def test_hydra_shows_and_keeps_each_line_once_in_its_own_format(tmp_path):
    done = run_in_files(write_script(tmp_path, HYDRA_APP), mode="hydra")

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (log,) = tmp_path.glob("outputs/*/*/train.log")
    metrics = "][drytrack][METRICS] - trainer (mlp), epoch 2/2: loss=0.25\n"
    for text in (done.stdout, log.read_text(encoding="utf-8")):
        assert text.count(metrics) == 1
        assert text.count("run ") == 2
        assert all(line.startswith("[20") for line in text.splitlines())


def test_every_job_of_a_hydra_multirun_is_logged_once(tmp_path):
    script = write_script(tmp_path, HYDRA_APP)
    done = run_in_files(script, "--multirun", "+lr=1,2", mode="hydra")

    assert done.returncode == 0, done.stderr
    logs = sorted(tmp_path.glob("multirun/*/*/*/train.log"))
    assert len(logs) == 2
    for log in logs:
        text = log.read_text(encoding="utf-8")
        assert text.count("epoch 2/2: loss=0.25") == 1
    assert done.stdout.count("epoch 2/2: loss=0.25") == 2


def test_hydra_without_its_own_logging_leaves_it_to_us(tmp_path):
    script = write_script(tmp_path, HYDRA_APP)
    silent = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    done = run_in_files(script, *silent, mode="hydra")

    assert (
        untimed(done.stdout.splitlines()).count("trainer (mlp), epoch 2/2: loss=0.25")
        == 1
    )


# -- notebooks -------------------------------------------------------------------

CELLS = """
    import drytrack
    drytrack.init_trackers({mode!r})
    run = drytrack.Experiment(name="Digits").create_run(record=False)
    run.start();
    # next cell
    run.register_model("net", "mlp")
    loop = drytrack.TrainingLoop("mlp", "trainer")
    for _ in loop.epochs(2):
        for _ in loop.batches(range(20)):
            loop.update(loss=0.5)
        loop.log_metrics(loss=0.25)
    # next cell
    run.stop()
"""


def run_notebook(tmp_path, mode, before=""):
    """Run the cells in a kernel; return all that they left, and the widgets."""
    import nbclient
    import nbformat

    cells = [before, *textwrap.dedent(CELLS.format(mode=mode)).split("# next cell\n")]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in cells]
    )
    client = nbclient.NotebookClient(
        notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    kind = "application/vnd.jupyter.widget-state+json"
    state = notebook.metadata.get("widgets", {}).get(kind, {}).get("state", {})
    return outputs, [widget["state"] for widget in state.values()]


@pytest.mark.notebook
def test_a_notebook_shows_widgets(tmp_path):
    outputs, widgets = run_notebook(tmp_path, "standard")

    bars = [one for one in widgets if one["_model_name"] == "FloatProgressModel"]
    texts = "".join(str(one.get("value")) for one in widgets)
    assert [bar["value"] for bar in bars] == [20, 20]
    assert [bar["bar_style"] for bar in bars] == ["success", "success"]
    assert "trainer epoch 2/2: 100%" in texts.replace("\u2007", " ")
    assert "loss=0.25" in texts
    streams = [one for one in outputs if one.output_type == "stream"]
    assert {one.name for one in streams} == {"stderr"}
    assert not [one for one in outputs if one.output_type == "error"]


@pytest.mark.notebook
@pytest.mark.parametrize("mode", sorted(modes._MODES))
def test_a_notebook_without_ipywidgets_gets_plain_lines(tmp_path, mode):
    blocked = "import sys; sys.modules['ipywidgets'] = None"
    outputs, widgets = run_notebook(tmp_path, mode, before=blocked)

    assert widgets == []
    assert not [one for one in outputs if one.output_type in ("error", "display_data")]
    text = "".join(one.text for one in outputs if one.output_type == "stream")
    assert ("20/20 batches, loss=0.25" in text) == (mode in ("standard", "minimal"))
    assert ("trainer (mlp), epoch 2/2: loss=0.25" in text) == (mode == "hydra")
    assert "\r" not in text
