"""``drytrack config``."""

from __future__ import annotations

import click

from drytrack.cli import _output


@click.group()
def config() -> None:
    """Look at how experiments and trackers are configured."""


@config.command()
def schema() -> None:
    """Print the JSON Schema of a configuration, with which editors complete.

    It holds the trackers whose packages are installed.
    """
    from drytrack.config import config_schema

    _output.print_json(config_schema())
