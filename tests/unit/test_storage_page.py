"""docs/storage.md shows the tables that there are, and queries that answer."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

import pytest

from drytrack import Experiment
from drytrack.core import log_events
from drytrack.trackers import _sql_schema as schema
from drytrack.trackers.sqlalchemy import SQLConnection

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "storage.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
(DIAGRAM,) = re.findall(r"^```mermaid\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
BOX = re.compile(r"^    (\w+) \{\n(.*?)^    \}", re.MULTILINE | re.DOTALL)

# What each query says of the two runs below.
ANSWERS = [
    [("slow", 3, 0.5), ("fast", 3, 0.75)],
    [("slow", 2, 0.125, "slow-2.pt"), ("fast", 1, 0.25, "fast-1.pt")],
    [("slow", 0.001)],
]


@pytest.fixture
def database(tmp_path):
    losses = {"slow": (0.5, 0.125, 0.25), "fast": (0.25, 0.5, 0.75)}
    for name, lr in (("slow", 0.001), ("fast", 0.1)):
        experiment = Experiment(
            {"optimizer": {"lr": lr}}, name="Queries", par_dir=tmp_path
        )
        experiment.trackers.subscribe(SQLConnection())
        with experiment.create_run(name):
            for epoch, value in enumerate(losses[name], 1):
                metrics = {"loss": 2 * value if name == "slow" else value}
                metrics["val_loss"] = value
                log_events.MetricEvent("mlp", "trainer", epoch, metrics)
                location = f"{name}-{epoch}.pt"
                log_events.SaveModelEvent("mlp", "weights", location, epoch)
    with contextlib.closing(sqlite3.connect(tmp_path / "drytrack.db")) as connection:
        yield connection


@pytest.mark.parametrize(
    ("query", "answer"), list(zip(QUERIES, ANSWERS, strict=True)), ids=range(3)
)
def test_each_query_of_the_page_answers_what_it_is_said_to(database, query, answer):
    assert database.execute(query).fetchall() == answer


def test_the_diagram_has_every_table():
    lines = re.findall(r"^    (\w+) \S+--\S+ (\w+) :", DIAGRAM, re.MULTILINE)
    drawn = {table for line in lines for table in line}

    assert drawn == schema.metadata.tables.keys() - {schema.VERSION_TABLE}


@pytest.mark.parametrize(("table", "columns"), BOX.findall(DIAGRAM))
def test_a_box_of_the_diagram_has_the_columns_of_its_table(table, columns):
    drawn = set(re.findall(r"^ +\w+ (\w+)", columns, re.MULTILINE))
    made = set(schema.metadata.tables[table].columns.keys())

    # The text below the diagram tells of digests, and of what is no number.
    told = {"name_key", "metric_key", "first_odd", "last_odd"}
    assert drawn == made - told
