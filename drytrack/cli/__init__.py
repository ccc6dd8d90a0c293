"""The ``drytrack`` command: look at runs, compare, replay, export and repair them.

Every verb says its options with ``--help``; ``docs/cli.md`` tells the verbs, and
what the exit codes mean.
"""

from __future__ import annotations

import importlib.util
import io
import sys

__all__ = ["main"]

NEEDED = ("click", "rich")
USAGE = 2


def main() -> None:
    """Run the command line, and exit."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"drytrack: the command line needs {' and '.join(missing)}: "
            f'pip install "drytrack[cli]"\n'
        )
        sys.exit(USAGE)
    for stream in (sys.stdout, sys.stderr):
        # Names, arrows and curves have letters that an output of Windows may lack.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    from drytrack.cli._app import app

    app(prog_name="drytrack")
