"""``drytrack report``."""

from __future__ import annotations

import click

from drytrack.cli import _output
from drytrack.cli._options import RUN, Settings, common, fail, find_run
from drytrack.report import write_report


@click.command()
@click.argument("runs", nargs=-1, required=True, type=RUN, metavar="RUN...")
@click.option("-o", "--output", default="report.html", show_default=True)
@click.option("--title", help="Heading; by default the experiment and the run.")
@common
def report(
    settings: Settings, runs: tuple[str, ...], output: str, title: str | None
) -> None:
    """Write one page about a run, or one that compares several.

    The page is one file that needs no network: curves with smoothing and log
    scale, tables, images, histograms, parameters and surroundings.
    """
    found = [find_run(settings, name) for name in dict.fromkeys(runs)]
    try:
        path = write_report(found, output, title=title)
    except OSError as err:
        fail(f"{output} cannot be written: {err.strerror or err}.")
    size = path.stat().st_size
    if settings.as_json:
        told = {"file": str(path), "bytes": size, "runs": len(found)}
        _output.print_json(told)
    else:
        some = "1 run" if len(found) == 1 else f"{len(found)} runs"
        click.echo(f"Wrote {path} about {some}, {size / 1e6:.1f} MB.")
