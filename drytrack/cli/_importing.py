"""``drytrack import``."""

from __future__ import annotations

import functools
import json
import pathlib
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from drytrack import _import_run
from drytrack.cli import _output
from drytrack.cli._options import FAILED, Settings, common
from drytrack.core.exceptions import RunExistsError, RunHeldError

if TYPE_CHECKING:
    from drytrack._import_model import ForeignRun


PLACE = click.Path(exists=True, path_type=pathlib.Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=pathlib.Path)


def _target(needed: bool) -> Callable[[Any], Any]:
    """Give a verb the options that say where its runs belong."""
    by_default = "" if needed else ", by default as the tool has it"

    def add(verb: Any) -> Any:
        with_tag = click.option("--tag", multiple=True, help="A tag; repeat.")(verb)
        return click.option(
            "--experiment",
            required=needed,
            help=f"Name of the experiment{by_default}.",
        )(with_tag)

    return add


def _imports(find: Callable[[Any], Iterable[ForeignRun]]) -> Any:
    """Make a verb of what finds the runs of a place: it records them."""

    @_target(needed=False)
    @common
    @functools.wraps(find)
    def verb(
        settings: Settings, place: Any, experiment: str | None, tag: tuple[str, ...]
    ) -> None:
        _record(settings, find(place), experiment, tag)

    return verb


@click.group(name="import")
def import_() -> None:
    """Make recorded runs of what other tools have written.

    Times are the original ones. What was imported before is left alone, or
    renewed if the tool has more of it by now.
    """


@import_.command()
@click.argument("file", type=FILE)
@_target(needed=True)
@click.option("--run-id", help="Id of the run, by default the file's name.")
@click.option("--epoch", "epoch_column", help="Column of epochs.")
@click.option("--step", "step_column", help="Column of steps.")
@click.option("--time", "time_column", help="Column of times, by default timestamp.")
@click.option("--model", default="model", show_default=True, help="Whose metrics.")
@click.option("--source", default="import", show_default=True, help="Who measured.")
@click.option("--param", multiple=True, metavar="NAME=VALUE", help="A parameter.")
@common
def csv(
    settings: Settings,
    file: pathlib.Path,
    experiment: str,
    run_id: str | None,
    epoch_column: str | None,
    step_column: str | None,
    time_column: str | None,
    model: str,
    source: str,
    param: tuple[str, ...],
    tag: tuple[str, ...],
) -> None:
    """Make a run of a CSV file: a row for each epoch or step.

    The file has a header. A column "epoch" or "step" says which, or else the rows are
    counted. Other columns are metrics; cells that hold no number are left out.
    """
    from drytrack import _import_csv

    if epoch_column and step_column:
        raise click.UsageError("Name a column of epochs, or one of steps.")
    found = _import_csv.find_run(
        file,
        experiment=experiment,
        run_id=run_id or file.stem,
        step_column=epoch_column or step_column,
        by_epoch=bool(epoch_column) if epoch_column or step_column else None,
        time_column=time_column,
        model=model,
        source=source,
        params=dict(map(_parse_param, param)),
    )
    _record(settings, [found], experiment, tag)


@import_.command()
@click.argument("place", type=PLACE, metavar="LOGDIR")
@_imports
def tensorboard(place: pathlib.Path) -> Iterable[ForeignRun]:
    """Make a run of each folder with event files of TensorBoard.

    Folders called train, validation and the like are sources of the run that
    they are in.
    """
    from drytrack import _import_tensorboard

    return _import_tensorboard.find_runs(place)


@import_.command()
@click.argument("place", type=PLACE, metavar="FOLDER")
@_imports
def wandb(place: pathlib.Path) -> Iterable[ForeignRun]:
    """Make runs of what offline runs of W&B have left.

    They are called run-*.wandb, and may be anywhere below FOLDER. A run that was
    resumed has several, which become its attempts.
    """
    from drytrack import _import_wandb

    return _import_wandb.find_runs(place)


@import_.command()
@click.argument("place", metavar="STORE")
@_imports
def mlflow(place: str) -> Iterable[ForeignRun]:
    """Make runs of those in a store of MLflow.

    It is a folder such as mlruns, an SQLite file, or an address.
    """
    from drytrack import _import_mlflow

    return _import_mlflow.find_runs(place)


def _record(
    settings: Settings,
    found: Iterable[ForeignRun],
    experiment: str | None,
    tags: tuple[str, ...],
) -> None:
    results = []
    refused = 0
    par_dir = settings.par_dir
    for run in found:
        try:
            done = _import_run.record_run(
                run, par_dir, experiment=experiment, tags=tags
            )
        except (RunExistsError, RunHeldError) as err:
            click.echo(f"Error: {err}", err=True)
            refused += 1
            continue
        results.append(done._asdict())
        if settings.as_json:
            continue
        click.echo(
            f"{done.run}: {done.outcome}, points: {done.points}, metrics: "
            f"{len(done.metrics)}, events: {done.events}."
        )
        for kind, count in done.left_out.items():
            click.echo(f"{done.run}: left out: {kind} ({count}).", err=True)
    if settings.as_json:
        _output.print_json(results)
    elif not results and not refused:
        click.echo("There are no runs.", err=True)
    if refused:
        sys.exit(FAILED)


def _parse_param(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"{text!r} is no parameter. Write NAME=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
