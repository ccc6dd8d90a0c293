"""Send one run to five tools at once, and to a sixth when it is over.

Shows that the training knows of none of them, and that what each has is the same::

    python examples/many_backends.py

Needs ``pip install "drytrack[all]"``; nothing leaves the machine.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drytrack import Experiment, Run, TrainingLoop, init_trackers
from drytrack.replay import replay
from drytrack.trackers.dvclive import DVCLive
from drytrack.trackers.mlflow import MLflow
from drytrack.trackers.sqlalchemy import SQLConnection
from drytrack.trackers.tensorboard import TensorBoard
from drytrack.trackers.wandb import Wandb

EPOCHS = 20
BLOCK = 32 * 1024


def train(experiment: Experiment) -> Run:
    """Find the minimum of a parabola, and return the run."""
    with experiment.create_run() as run:
        loop = TrainingLoop(run.register_model(object(), "parabola"), name="train")
        x = 4.0
        for _ in loop.epochs(EPOCHS):
            x -= 0.1 * 2 * x
            loop.log_metrics(loss=x * x)
    return run


# -- The losses that each tool has, as it says itself. --------------------------------
def read_tensorboard(folder: Path, run_id: str) -> list[float]:
    """Return what TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = folder.rglob("events.out.*")
    events = EventAccumulator(str(file)).Reload()
    return [event.value for event in events.Scalars("train/loss")]


def read_mlflow(folder: Path, run_id: str) -> list[float]:
    """Return what is in MLflow's database."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{(folder / 'mlflow.db').as_posix()}")
    experiment = client.get_experiment_by_name("Parabola")
    named = f"attributes.run_name = '{run_id}'"
    (run,) = client.search_runs([experiment.experiment_id], named)
    history = client.get_metric_history(run.info.run_id, "train/loss")
    return [point.value for point in sorted(history, key=lambda point: point.step)]


def read_wandb(folder: Path, run_id: str) -> list[float]:
    """Return what is in the file that `wandb sync` would send."""
    (file,) = folder.glob("offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 60
    while True:  # W&B's own process writes on for a moment after the run
        records = list(read_records(file.read_bytes()))
        if any(r.HasField("exit") for r in records) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    items = [item for r in records for item in r.history.item]
    return [
        json.loads(item.value_json)
        for item in items
        if "train/loss" in (item.key, *item.nested_key)
    ]


def read_records(data: bytes) -> Iterator[Any]:
    """Yield W&B's messages, which its file holds in blocks, as LevelDB's logs do."""
    from wandb.proto.wandb_internal_pb2 import Record

    at, message = 7, b""
    while at + 7 <= len(data):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        message += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole message, or the last part of one
            yield Record.FromString(message)
            message = b""


def read_dvclive(folder: Path, run_id: str) -> list[float]:
    """Return the rows of the file that DVC plots."""
    from dvclive.utils import parse_tsv

    (file,) = folder.rglob("loss.tsv")
    return [float(row["loss"]) for row in parse_tsv(file)]


def read_sql(folder: Path, run_id: str) -> list[float]:
    """Return what is in drytrack's own database."""
    reader = SQLConnection.from_run(folder / "drytrack.db", "Parabola", run_id)
    return list(reader.load_metrics("parabola")["train"]["loss"].values)


def read_trackio(folder: Path, run_id: str) -> list[float]:
    """Return the rows of Trackio's database."""
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs("Parabola", run_id)
    return [row["train/loss"] for row in rows if "train/loss" in row]


READERS = {
    "TensorBoard": ("tensorboard", read_tensorboard),
    "MLflow": ("mlflow", read_mlflow),
    "W&B": ("wandb", read_wandb),
    "DVCLive": ("dvclive", read_dvclive),
    "SQLite": (".", read_sql),
}
"""Tool → its folder, and how to read what is there."""


def show(name: str, folder: Path, losses: list[float]) -> None:
    """Print where a tool keeps the run, and what it says."""
    count = "1 loss" if len(losses) == 1 else f"{len(losses)} losses"
    print(f"{name:<12}{count:>10}, the last one {losses[-1]:.6f}, in {folder}")


def main() -> None:
    """Train once, look at five tools, replay the run into a sixth."""
    # A folder of its own each time: what is read back is this run's.
    folder = Path("experiments", time.strftime("%Y-%m-%d_%H-%M-%S")).absolute()
    os.environ["DVC_NO_ANALYTICS"] = "1"
    os.environ["TRACKIO_DIR"] = str(folder / "trackio")  # read when it is imported
    init_trackers("none")
    experiment = Experiment({"lr": 0.1, "start": 4.0}, name="Parabola", par_dir=folder)
    experiment.trackers.subscribe(
        TensorBoard(), MLflow(), Wandb(mode="offline"), DVCLive(), SQLConnection()
    )

    run = train(experiment)
    for name, (place, read) in READERS.items():
        show(name, folder / place, read(folder / place, run.id))

    replay(run, Wandb(module="trackio", auto_log_cpu=False))
    show("Trackio", folder / "trackio", read_trackio(folder, run.id))
    print(f"What Trackio got was read from the journal in {run.path}.")


if __name__ == "__main__":
    main()
