"""``drytrack export``."""

from __future__ import annotations

import io
import pathlib
import sys
from typing import IO, TYPE_CHECKING

import click

from drytrack._frames import load
from drytrack.cli import _output
from drytrack.cli._options import RUN, Settings, common, fail, find_run
from drytrack.store import RunSet

if TYPE_CHECKING:
    from drytrack._frames import Table

FORMATS = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@click.command()
@click.argument("runs", nargs=-1, type=RUN, metavar="RUN...")
@click.option(
    "--what",
    type=click.Choice(["metrics", "params", "summary", "runs"]),
    default="metrics",
    show_default=True,
)
@click.option("-o", "--output", default="-", help="A file; by default the output.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "parquet", "jsonl"]),
    help="By default as the file's name says, or csv.",
)
@click.option("--experiment", help="All runs of this experiment, where none is named.")
@click.option("--metric", multiple=True, help="This metric; repeat for several.")
@click.option("--axis", help="epoch, step or another axis; by default all.")
@common
def export(
    settings: Settings,
    runs: tuple[str, ...],
    what: str,
    output: str,
    form: str | None,
    experiment: str | None,
    metric: tuple[str, ...],
    axis: str | None,
) -> None:
    """Write metrics or parameters as CSV, Parquet or JSON Lines.

    Or summaries of series, or the list of runs. Without RUN, those of all runs.
    Large results stream. With --json, what was written is told on the output as
    JSON.
    """
    form = form or FORMATS.get(pathlib.Path(output).suffix.lower(), "csv")
    if output == "-" and (settings.as_json or form == "parquet"):
        raise click.UsageError("Name a file to write to: -o FILE.")
    if runs:
        found = RunSet([find_run(settings, name) for name in runs])
    else:
        found = settings.store.runs(experiment)
    table: Table
    if what == "metrics":
        table = found.metrics(*metric, axis=axis)
    else:
        table = {"params": found.params, "summary": found.summary, "runs": found.table}[
            what
        ]()
    if output == "-":
        # As a file has it, whatever the output's own letters are.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        _write_text(table, form, sys.stdout)
        return
    if form == "parquet":
        load("pyarrow", "arrow", "Parquet")
    path = pathlib.Path(output)
    try:
        if form == "parquet":
            count = table.to_parquet(path)
        else:
            with path.open("w", encoding="utf-8", newline="") as file:
                count = _write_text(table, form, file)
    except OSError as err:
        fail(f"{path} cannot be written: {err.strerror or err}.")
    if settings.as_json:
        _output.print_json({"file": str(path), "rows": count, "runs": len(found)})
    else:
        click.echo(f"Wrote {count} rows of {len(found)} runs to {path}.")


def _write_text(table: Table, form: str, file: IO[str]) -> int:
    return table.to_csv(file) if form == "csv" else table.to_jsonl(file)
