"""What it takes to bring points into a database, and to get them back.

Writing: the yardstick is ``sqlite3`` alone, ``executemany`` in WAL mode,
transactions of 1,000 rows, into the same table, floats made beforehand. Ours is
timed from the first publish until all points are readable, journal included.
The publisher's own time is compared with a journaled publish that nobody
watches: in a loop that computes between its steps, and in one that does not.

Reading: the yardstick is a ``SELECT`` of ``sqlite3``, with the list of runs on an
index of ten million points. With ``--large`` many processes share a database as
well, and the memory for ten million points is measured, which takes some minutes.
"""

from __future__ import annotations

import argparse

from _storage_read import measure_reading
from _storage_scale import measure_memory, measure_processes
from _storage_write import measure_writing

import drytrack

N_POINTS = 10_000_000

LIMITS = {
    "of sqlite3": (">=", 0.45),
    "caller, paced": ("<=", 1.5),
    "caller, flat out": ("<=", 1.5),
    "bytes a point": ("<=", 30.0),
    "a series": ("<=", 1.5),
    "the list": ("<=", 3.0),
    "8 on SQLite": (">=", 0.5),
    "32 on PostgreSQL": (">=", 0.5),
    "MB, writer": ("<=", 150.0),
    "MB, reader": ("<=", 150.0),
}


def main() -> None:
    """Print the tables; fail where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="measure all of it")
    large = parser.parse_args().large
    measured = measure_writing()
    measured |= measure_reading(N_POINTS)
    if large:
        print()
        measured |= measure_processes()
        measured |= measure_memory(N_POINTS)
    print(f"\n{'':<32} measured       limit")
    missed = []
    for name, value in measured.items():
        sign, limit = LIMITS[name]
        held = value >= limit if sign == ">=" else value <= limit
        print(f"{name:<32} {value:8.2f}   {sign} {limit:6.2f}   {'' if held else '!'}")
        if not held:
            missed.append(name)
    if missed:
        raise SystemExit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    drytrack.init_trackers("none")
    main()
