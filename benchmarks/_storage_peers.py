"""The same points through other trackers, where they are installed."""

from __future__ import annotations

import importlib.util
import pathlib
import subprocess
import sys
import textwrap

STEPS = 500

PEERS = {
    "trackio": """
        os.environ["TRACKIO_DIR"] = folder
        import trackio

        trackio.init(project="storage", name="run")
        began = time.perf_counter()
        for step in range(steps):
            trackio.log({name: step / 7 for name in names}, step=step)
        caller_s = time.perf_counter() - began
        trackio.finish()
        """,
    "mlflow": """
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{folder}/own.db")
        with mlflow.start_run():
            began = time.perf_counter()
            for step in range(steps):
                mlflow.log_metrics({name: step / 7 for name in names}, step=step)
            caller_s = time.perf_counter() - began
        """,
}

FRAME = """
import os
import sys
import time

folder, steps, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
{code}
total_s = time.perf_counter() - began
print()
print(caller_s / steps, total_s / steps)
"""


def installed_peers() -> list[str]:
    """Return the peers that can be measured here; say which cannot."""
    found = [name for name in PEERS if importlib.util.find_spec(name) is not None]
    for name in PEERS:
        if name not in found:
            print(f"{name}: skipped, since it is not installed")
    return found


def write_peer(
    name: str, folder: pathlib.Path, metrics: tuple[str, ...]
) -> tuple[float, float]:
    """Return seconds for a step: of the caller, and until all can be read.

    Each runs in a process of its own: they bind their folder when imported.
    """
    code = FRAME.format(code=textwrap.dedent(PEERS[name]))
    command = [sys.executable, "-c", code, str(folder), str(STEPS)]
    done = subprocess.run(  # noqa: S603  # our own code
        [*command, *metrics], check=True, capture_output=True, text=True
    )
    caller_s, total_s = done.stdout.splitlines()[-1].split()
    return float(caller_s), float(total_s)
