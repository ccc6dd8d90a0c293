"""The figures that the documents name are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from drytrack.core import _bus, _codec, _outcome, _worker, journal
from drytrack.trackers import (
    _plot_points,
    _sql_database,
    _sql_points,
    _sql_schema,
)

DOCS = Path(__file__).resolve().parents[2] / "docs"
WORKERS = "decisions/0004-workers-poll.md"
LOOKS_A_SECOND = 1 / _worker.POLL_S

FIGURES = [
    (WORKERS, f"one ring of at most {_bus.RING_SIZE:,} of the newest events"),
    (WORKERS, f"look for new ones {LOOKS_A_SECOND:.0f} times a second"),
    (WORKERS, f"While more than {_worker.BURST:,} events come between two looks"),
    (WORKERS, f"After each batch ({_worker.BATCH:,} events, or one second)"),
    (
        WORKERS,
        f"reaches a background tracker up to {1000 * _worker.POLL_S:.0f} ms late",
    ),
    (WORKERS, f"of more than {_worker.BURST * LOOKS_A_SECOND:,.0f} events a second"),
    (WORKERS, f"is over, or after {_bus.RING_SIZE // 4 * 3:,} of them"),
    (WORKERS, f"Every {_worker.BREATH_NS / 1e6:g} ms a worker lets go"),
    (
        WORKERS,
        f"growing pauses ({_worker.FIRST_PAUSE_S:g} s, doubling to "
        f"{_worker.LONGEST_PAUSE_S / 60:g} min)",
    ),
    ("architecture.md", f"look for new events {LOOKS_A_SECOND:.0f} times a second"),
    (
        "decisions/0003-journal.md",
        f"in memory (at most {journal.MAX_BACKLOG >> 20} MiB)",
    ),
    ("decisions/0003-journal.md", f"tables above {_codec.MAX_INLINE >> 10} KiB)"),
    ("guarantees.md", f"At most {journal.MAX_BACKLOG >> 20} MiB wait;"),
    (
        "guarantees.md",
        f"(`{_outcome.EXIT_VARIABLE}`, {_outcome.EXIT_TIMEOUT_S:g} s; "
        f"{_outcome.INTERRUPTED_TIMEOUT_S:g} s when interrupted)",
    ),
    ("runs.md", f"have at the end, {_outcome.EXIT_TIMEOUT_S:g} by default"),
    ("storage.md", f"under a heavy one, up to {_worker.BATCH:,} events."),
    ("storage.md", f"wait up to {_sql_database.BUSY_TIMEOUT_S:g} s, then try again"),
    ("storage.md", f"a long one (more than {_sql_points.QUICK_REBUILD:,} points)"),
    ("storage.md", f"by a digest of {len(_sql_schema.name_key('loss'))} characters"),
    ("trackers.md", f"A curve of more than {_plot_points.MAX_POINTS:,} points"),
]


@pytest.mark.parametrize(("page", "figure"), FIGURES)
def test_a_figure_of_the_documents_is_that_of_the_code(page, figure):
    text = (DOCS / page).read_text(encoding="utf-8")

    assert figure in " ".join(text.split())
