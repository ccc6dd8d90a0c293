"""The verbs of the command line, each loaded when it is used."""

from __future__ import annotations

import importlib

import click

VERBS = {
    "compact": "_journals",
    "compare": "_comparing",
    "completion": "_completing",
    "config": "_configuring",
    "delete": "_editing",
    "doctor": "_repairing",
    "export": "_exporting",
    "goal": "_editing",
    "import": "_importing",
    "metrics": "_curves",
    "note": "_editing",
    "plot": "_plotting",
    "rename": "_editing",
    "replay": "_journals",
    "report": "_reporting",
    "runs": "_listing",
    "show": "_listing",
    "tag": "_editing",
    "tail": "_following",
}
"""Verb → the module that has it."""


class Verbs(click.Group):
    """A group that imports a verb's module when the verb is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs."""
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb, or None where there is no such one."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"drytrack.cli.{VERBS[cmd_name]}")
        # Some verbs are words that Python keeps for itself: import_.
        command = getattr(module, cmd_name, None) or getattr(module, f"{cmd_name}_")
        assert isinstance(command, click.Command)
        return command


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="drytrack")
def app() -> None:
    """Look at recorded runs, compare, replay, export and repair them.

    RUN is a run's folder, EXPERIMENT/ID, an ID or the beginning of one (or of a
    UUID) that no other run shares, or "last".
    """
