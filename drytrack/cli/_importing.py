"""``drytrack import``."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import click

from drytrack import _csv_import
from drytrack.cli import _output
from drytrack.cli._options import Settings, common


@click.group(name="import")
def import_() -> None:
    """Make recorded runs of what other tools have written."""


@import_.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--experiment", required=True, help="Name of the experiment.")
@click.option("--run-id", help="Id of the run, by default the file's name.")
@click.option("--epoch", "epoch_column", help="Column of epochs.")
@click.option("--step", "step_column", help="Column of steps.")
@click.option("--model", default="model", show_default=True, help="Whose metrics.")
@click.option("--source", default="import", show_default=True, help="Who measured.")
@click.option("--param", multiple=True, metavar="NAME=VALUE", help="A parameter.")
@click.option("--tag", multiple=True, help="A tag; repeat for several.")
@common
def csv(
    settings: Settings,
    file: str,
    experiment: str,
    run_id: str | None,
    epoch_column: str | None,
    step_column: str | None,
    model: str,
    source: str,
    param: tuple[str, ...],
    tag: tuple[str, ...],
) -> None:
    """Make a run of a CSV file with a header: one row for each epoch or step.

    By default a column "epoch" or "step" says which, or else the rows are
    counted. Other columns are metrics; cells that hold no number are left out.
    """
    if epoch_column and step_column:
        raise click.UsageError("Name a column of epochs, or one of steps.")
    path = pathlib.Path(file)
    done = _csv_import.import_csv(
        path,
        par_dir=settings.par_dir,
        experiment=experiment,
        run_id=run_id or path.stem,
        column=epoch_column or step_column,
        by_epoch=bool(epoch_column) if epoch_column or step_column else None,
        model=model,
        source=source,
        params=dict(map(_parse_param, param)),
        tags=tag,
    )
    if settings.as_json:
        _output.print_json(done._asdict())
        return
    click.echo(
        f"Made {done.run}: {done.points} points of {len(done.metrics)} metrics from "
        f"{done.rows} rows."
    )
    if done.skipped:
        click.echo(f"{done.skipped} cells held no number.", err=True)


def _parse_param(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"{text!r} is no parameter. Write NAME=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
