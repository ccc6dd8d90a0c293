"""Run the command line as ``python -m drytrack.cli``."""

from __future__ import annotations

from drytrack.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
