"""Sweep over learning rates and widths: four processes write into one database.

Shows how processes share a database, and how runs are compared afterwards::

    python examples/sweep.py                           # experiments/drytrack.db
    python examples/sweep.py postgresql://me@db/runs   # a server's

Needs numpy and scikit-learn (for its digits).
"""

from __future__ import annotations

import itertools
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import drytrack
from drytrack import Experiment, TestLoop, TrainingLoop
from drytrack.trackers.sqlalchemy import SQLConnection

FOLDER = Path("experiments").absolute()
GRID = {"lr": [0.03, 0.1, 0.3, 1.0], "hidden": [16, 64]}
N_EPOCHS = 12
N_PROCESSES = 4


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return the probability of each class."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


class Net:
    """A perceptron with one hidden layer."""

    def __init__(self, hidden: int, seed: int) -> None:
        draw = np.random.default_rng(seed).normal
        self.w1 = draw(0, 0.2, (64, hidden))
        self.w2 = draw(0, 0.2, (hidden, 10))

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the hidden layer and the probabilities."""
        hidden = np.maximum(x @ self.w1, 0)
        return hidden, softmax(hidden @ self.w2)

    def step(self, x: np.ndarray, y: np.ndarray, lr: float) -> float:
        """Go down the gradient; return the loss before."""
        hidden, p = self.forward(x)
        error = (p - np.eye(10)[y]) / len(y)
        back = (error @ self.w2.T) * (hidden > 0)
        self.w2 -= lr * hidden.T @ error
        self.w1 -= lr * x.T @ back
        return float(-np.log(p[np.arange(len(y)), y] + 1e-12).mean())


def train(task: tuple[str, str, int, dict[str, float]]) -> str:
    """Train one model in a process of its own; return the id of its run."""
    url, sweep, number, config = task
    drytrack.init_trackers("none")  # no progress bars of four processes at once
    experiment = Experiment(config, name="Sweep", par_dir=FOLDER, tags=[sweep])
    experiment.trackers.subscribe(SQLConnection(url, goals={"accuracy": "higher"}))
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x / 16, y, random_state=1)
    rng = np.random.default_rng(1)

    with experiment.create_run(f"{sweep}-{number}") as run:
        net = run.register_model(Net(int(config["hidden"]), seed=1), "net")
        trainer, tester = TrainingLoop(net, "train"), TestLoop(net, "test")
        for _ in trainer.epochs(N_EPOCHS):
            batches = np.array_split(rng.permutation(len(y_train)), 40)
            for chosen in trainer.batches(batches):
                loss = net.step(x_train[chosen], y_train[chosen], config["lr"])
                trainer.update(loss=loss)
            with tester:
                p = net.forward(x_test)[1]
                tester.log_metrics({"accuracy": (p.argmax(axis=1) == y_test).mean()})
    return run.id


def compare(url: str, sweep: str) -> None:
    """Print the runs of a sweep, the best one first."""
    runs = drytrack.open_store(url).runs("Sweep", tag=sweep)
    best = {
        run.id: summary
        for run in runs
        for summary in run.summaries()
        if summary.key.metric == "accuracy" and summary.best is not None
    }
    print(f"{'run':<18} {'lr':>5} {'hidden':>6}  best accuracy   last  curve")
    for run in sorted(runs, key=lambda run: -best[run.id].best):
        params, found = run.params(), best[run.id]
        curve = run.series("accuracy").values
        bars = "".join("_.-~=*%#"[min(7, int(value * 8))] for value in curve)
        print(
            f"{run.id:<18} {params['lr']:>5} {params['hidden']:>6}  "
            f"{found.best:.3f} @{found.best_at:<6} {found.last:.3f}  {bars}"
        )


def main() -> None:
    """Run the grid, four runs at a time, and compare them."""
    database = FOLDER / "drytrack.db"
    url = sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{database.as_posix()}"
    sweep = time.strftime("%Y%m%d-%H%M%S")
    configs = [
        dict(zip(GRID, v, strict=True)) for v in itertools.product(*GRID.values())
    ]
    tasks = [(url, sweep, number, config) for number, config in enumerate(configs)]

    # "spawn" is the one way to start processes that every system has.
    with multiprocessing.get_context("spawn").Pool(N_PROCESSES) as pool:
        for done in pool.imap_unordered(train, tasks):
            print(f"{done} has ended")

    print()
    compare(url, sweep)
    where = database if len(sys.argv) == 1 else "URL"  # which may hold a password
    print(
        f"\nAll runs of all sweeps: drytrack runs Sweep --show accuracy --dir {where}"
    )
    print(f"Two of them, in full:   drytrack compare {sweep}-0 {sweep}-7 --dir {where}")


if __name__ == "__main__":
    main()
