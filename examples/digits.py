"""Train a small neural network on handwritten digits, watched by drytrack.

Shows progress bars, metrics in CSV files, checkpoints, and going on later::

    python examples/digits.py             # a new run of 10 epochs
    python examples/digits.py --resume    # 10 more epochs of that run

Needs numpy, scikit-learn (for its digits), matplotlib and plotly.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from drytrack import Experiment, TestLoop, TrainingLoop
from drytrack.trackers.csv import CSVDumper

CONFIG = {"hidden": 64, "lr": 0.5, "batch_size": 32, "seed": 1}
FOLDER = Path("experiments").absolute()


# -- The model and its data, as anybody would write them: no drytrack here. -----------
class MLP:
    """A perceptron with one hidden layer, trained by gradient descent."""

    def __init__(self, n_inputs: int, n_hidden: int, n_classes: int) -> None:
        draw = np.random.default_rng(CONFIG["seed"]).normal
        self.weights = {
            "w1": draw(0, (2 / n_inputs) ** 0.5, (n_inputs, n_hidden)),
            "b1": np.zeros(n_hidden),
            "w2": draw(0, (2 / n_hidden) ** 0.5, (n_hidden, n_classes)),
            "b2": np.zeros(n_classes),
        }

    def __repr__(self) -> str:  # recorded as the model's architecture
        return f"MLP({', '.join(f'{k}: {v.shape}' for k, v in self.weights.items())})"

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the hidden layer and the probability of each class."""
        hidden = np.maximum(x @ self.weights["w1"] + self.weights["b1"], 0)
        scores = hidden @ self.weights["w2"] + self.weights["b2"]
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return hidden, powers / powers.sum(axis=1, keepdims=True)

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """Return cross-entropy and accuracy."""
        p = self.predict(x)[1]
        loss = -np.log(p[np.arange(len(y)), y] + 1e-12).mean()
        return {"loss": loss, "accuracy": (p.argmax(axis=1) == y).mean()}

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        """Take one step down the gradient; return the loss before it."""
        hidden, p = self.predict(x)
        error = (p - np.eye(p.shape[1])[y]) / len(y)
        back = (error @ self.weights["w2"].T) * (hidden > 0)
        slopes = (x.T @ back, back.sum(0), hidden.T @ error, error.sum(0))
        for weight, slope in zip(self.weights.values(), slopes, strict=True):
            weight -= CONFIG["lr"] * slope
        return float(-np.log(p[np.arange(len(y)), y] + 1e-12).mean())


@dataclasses.dataclass
class Batches:
    """Shuffled batches; bars show their number, size and data set where known."""

    dataset: np.ndarray
    labels: np.ndarray
    batch_size: int
    epoch: int = 0

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng([CONFIG["seed"], self.epoch])
        for chosen in np.array_split(rng.permutation(len(self.dataset)), len(self)):
            yield self.dataset[chosen], self.labels[chosen]


# -- Training tells what happens, and does not know who watches. ----------------------
def train(net: MLP, folder: Path, n_epochs: int) -> None:
    """Train, test and save, from the last checkpoint in the folder on."""
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        x / 16, y, test_size=0.2, stratify=y, random_state=CONFIG["seed"]
    )
    batches = Batches(x_train, y_train, CONFIG["batch_size"])
    trainer, tester = TrainingLoop(net, "trainer"), TestLoop(net, "test")
    if saved := sorted(folder.glob("epoch_*.npz")):
        with np.load(saved[-1]) as arrays:
            net.weights = dict(arrays)
        trainer.load_model("checkpoint", saved[-1], epoch=int(saved[-1].stem[-4:]))

    for epoch in trainer.epochs(n_epochs):  # those after the one that was loaded
        batches.epoch = epoch
        for x, y in trainer.batches(batches):
            trainer.update(loss=net.step(x, y))
        trainer.log_metrics(net.evaluate(x_train, y_train))
        with tester:
            tester.log_metrics(net.evaluate(x_test, y_test))
        if epoch % 5 == 0:
            np.savez(path := folder / f"epoch_{epoch:04}.npz", **net.weights)
            trainer.save_model("checkpoint", path)


def main() -> None:
    """Run the experiment, watched by the default trackers and one more."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--resume", action="store_true", help="go on with the last run")
    resume = "auto" if parser.parse_args().resume else False

    experiment = Experiment(CONFIG, name="Digits", par_dir=FOLDER)
    experiment.trackers.subscribe(csv := CSVDumper())
    with experiment.create_run(resume=resume) as run:
        (own := FOLDER / "digits" / run.id).mkdir(parents=True, exist_ok=True)
        train(run.register_model(MLP(64, CONFIG["hidden"], 10), "mlp"), own, 10)

    # Read back what was written, in earlier attempts too, and draw it twice.
    metrics = csv.load_metrics("mlp")
    picture = Figure(figsize=(9, 3.5), layout="constrained")
    FigureCanvasAgg(picture)  # a canvas of its own: no window is opened
    page = go.Figure(layout={"title": f"Digits {run.id}", "xaxis_title": "epoch"})
    for name, axes in zip(("loss", "accuracy"), picture.subplots(1, 2), strict=True):
        for source, series in metrics.items():
            epochs, values = series[name]
            axes.plot(epochs, values, marker=".", label=source)
            page.add_scatter(x=epochs, y=values, name=f"{source} {name}")
        axes.set(xlabel="epoch", ylabel=name)
        axes.legend()
    picture.savefig(own / "learning_curve.png", dpi=150)
    page.write_html(own / "learning_curve.html")
    print(f"\nTest accuracy after epoch {epochs[-1]}: {values[-1]:.3f}")
    print(f"Learning curve:   {own / 'learning_curve.png'}")
    print(f"The same to zoom: {own / 'learning_curve.html'}")
    print("Go on with it:    make demo ARGS=--resume")


if __name__ == "__main__":
    main()
