"""The ``drytrack`` command: look at runs, compare, replay, export and repair them.

Every verb says its options with ``--help``; ``docs/cli.md`` tells them all, and
what the exit codes mean.
"""

from __future__ import annotations

import importlib.util
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
    from drytrack.cli._app import app

    app(prog_name="drytrack")
