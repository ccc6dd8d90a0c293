"""Query results: rows and columns that stream, and become data frames."""

from __future__ import annotations

import csv
import importlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Literal

from drytrack.core._record import tag_non_finite
from drytrack.core.exceptions import MissingDependencyError

if TYPE_CHECKING:
    import os

    import pandas as pd
    import polars as pl
    import pyarrow as pa

Kind = Literal["text", "whole", "float", "any"]
"""What a column holds: text, integers, floats, or whatever a parameter may be."""

Batch = list[list[Any]]
"""Some rows, column by column."""


class Table:
    """The result of a query; read anew each time that it is asked.

    Iterating yields one mapping for each row. Whatever the size of the result,
    only a batch of rows is in memory, unless a whole data frame is asked for.

    Attributes:
        columns: Name → what the column holds.
    """

    def __init__(
        self, columns: Mapping[str, Kind], read: Callable[[], Iterator[Batch]]
    ) -> None:
        """Describe the rows.

        Args:
            columns: Name → what the column holds.
            read: Returns the rows, in batches, from the first one on.
        """
        self.columns = dict(columns)
        self._read = read

    def __repr__(self) -> str:
        """Name the columns."""
        return f"<Table of {', '.join(self.columns)}>"

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows."""
        for row in self.rows():
            yield dict(zip(self.columns, row, strict=True))

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows as tuples, in the order of `columns`."""
        for batch in self._read():
            yield from zip(*batch, strict=True)

    def batches(self) -> Iterator[dict[str, list[Any]]]:
        """Yield some rows at a time, as column → values."""
        for batch in self._read():
            yield dict(zip(self.columns, batch, strict=True))

    def to_pandas(self) -> pd.DataFrame:
        """Return all rows as a pandas data frame.

        Raises:
            MissingDependencyError: If pandas is not installed.
        """
        pandas = load("pandas", "pandas", "Table.to_pandas")
        frames = [
            pandas.DataFrame(self._typed_for_pandas(pandas, batch))
            for batch in self._batches_or_empty()
        ]
        frame: pd.DataFrame = pandas.concat(frames, ignore_index=True)
        return frame

    def to_polars(self) -> pl.DataFrame:
        """Return all rows as a polars data frame.

        Raises:
            MissingDependencyError: If polars is not installed.
        """
        polars = load("polars", "polars", "Table.to_polars")
        schema = {
            "text": polars.String,
            "whole": polars.Int64,
            "float": polars.Float64,
            "any": None,
        }
        frames = [
            polars.DataFrame(
                {
                    name: polars.Series(
                        name,
                        values if kind != "any" else even_out(values),
                        dtype=schema[kind],
                    )
                    for (name, kind), values in zip(
                        self.columns.items(), batch, strict=True
                    )
                }
            )
            for batch in self._batches_or_empty()
        ]
        frame: pl.DataFrame = polars.concat(frames)
        return frame

    def to_arrow(self) -> pa.Table:
        """Return all rows as an Arrow table.

        Raises:
            MissingDependencyError: If pyarrow is not installed.
        """
        pyarrow = load("pyarrow", "arrow", "Table.to_arrow")
        batches = list(self.arrow_batches())
        return pyarrow.Table.from_batches(batches)

    def arrow_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield Arrow record batches of one schema; one at least, maybe empty.

        Raises:
            MissingDependencyError: If pyarrow is not installed.
        """
        pyarrow = load("pyarrow", "arrow", "Table.arrow_batches")
        types = {
            "text": pyarrow.string(),
            "whole": pyarrow.int64(),
            "float": pyarrow.float64(),
        }
        schema = None
        for batch in self._batches_or_empty():
            arrays = [
                pyarrow.array(even_out(values))
                if kind == "any"
                else pyarrow.array(values, types[kind])
                for kind, values in zip(self.columns.values(), batch, strict=True)
            ]
            if schema is None:
                schema = pyarrow.schema(
                    [
                        (name, array.type)
                        for name, array in zip(self.columns, arrays, strict=True)
                    ]
                )
            yield pyarrow.record_batch(arrays, schema=schema)

    def to_csv(self, file: IO[str]) -> int:
        """Write the rows as CSV; a missing value is an empty cell.

        Args:
            file: A text file opened with ``newline=""``.

        Returns:
            How many rows were written.
        """
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        count = 0
        for row in self.rows():
            writer.writerow(map(_cell, row))
            count += 1
        return count

    def to_jsonl(self, file: IO[str]) -> int:
        """Write the rows as JSON Lines; NaN and ±inf as ``{"$float": "nan"}``.

        Args:
            file: A text file.

        Returns:
            How many rows were written.
        """
        count = 0
        for row in self:
            file.write(json.dumps(tag_non_finite(row), ensure_ascii=False) + "\n")
            count += 1
        return count

    def to_parquet(self, path: str | os.PathLike[str]) -> int:
        """Write the rows as a Parquet file.

        Args:
            path: The file; an existing one is replaced.

        Returns:
            How many rows were written.

        Raises:
            MissingDependencyError: If pyarrow is not installed.
        """
        load("pyarrow", "arrow", "Table.to_parquet")
        parquet = importlib.import_module("pyarrow.parquet")
        batches = self.arrow_batches()
        first = next(batches)
        count = 0
        with parquet.ParquetWriter(path, first.schema) as writer:
            for batch in itertools.chain([first], batches):
                writer.write_batch(batch)
                count += batch.num_rows
        return count

    def _batches_or_empty(self) -> Iterator[Batch]:
        """Yield the batches; an empty one where there is none, for its columns."""
        empty = True
        for batch in self._read():
            empty = False
            yield batch
        if empty:
            yield [[] for _ in self.columns]

    def _typed_for_pandas(self, pandas: Any, batch: Batch) -> dict[str, Any]:
        types = {"text": "object", "whole": "Int64", "float": "float64"}
        typed = {}
        for (name, kind), values in zip(self.columns.items(), batch, strict=True):
            if kind == "whole" and None not in values:
                typed[name] = pandas.Series(values, dtype="int64")
            elif kind == "any":
                typed[name] = pandas.Series(values, dtype=None if values else "object")
            else:
                typed[name] = pandas.Series(values, dtype=types[kind])
        return typed


def load(module: str, extra: str, who: str) -> Any:
    """Import an optional package.

    Args:
        module: Its name.
        extra: The extra that installs it.
        who: Who needs it, for the error.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as err:
        msg = f'{who} needs the {module} package: pip install "drytrack[{extra}]"'
        raise MissingDependencyError(msg) from err


def even_out(values: Sequence[Any]) -> list[Any]:
    """Return values of one type, as text where they are of several.

    Columns of data frames hold one type; parameters of different runs, or lists
    of unlike items, need not.
    """
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) <= 1 and kinds <= {str, bool, int, float}:
        return list(values)
    as_they_are = (str, type(None))
    return [v if isinstance(v, as_they_are) else _cell(v) for v in values]


def one_batch(columns: Mapping[str, Kind], rows: Sequence[Sequence[Any]]) -> Table:
    """Return a table of rows that are in memory."""
    kept = [list(column) for column in zip(*rows, strict=True)]
    return Table(columns, lambda: iter([kept] if rows else []))


def _cell(value: Any) -> Any:
    """Return what a cell says: floats in full, structures as JSON."""
    if isinstance(value, (list, dict, bool)):
        return json.dumps(tag_non_finite(value), ensure_ascii=False)
    if isinstance(value, float):
        return repr(value)
    return "" if value is None else str(value)
