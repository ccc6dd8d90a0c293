"""One CSV file of metrics: how rows are laid out, extended and read back.

Two layouts, both with one header line and rows as long as it::

    epoch,attempt,rewind,seq,loss,accuracy    wide: an empty cell is no value
    1,1,0,17,0.5,

    metric,epoch,attempt,rewind,seq,value     long: one row for each value
    loss,1,1,0,17,0.5

``seq`` is the event's sequence number in the run's journal, by which nothing is
written twice; it is empty where the run has none.

A file begins wide. A metric that appears late adds a column: the file is
rewritten, old rows padded, and takes the old one's place at once. Where that
would happen again and again (more than 256 columns, or late metrics in a large
file) the file is rewritten one last time, as a long one, which any name fits.
So n names cost time in proportion to n, and the header is always true to the
rows. No cell holds a line feed, so that a line is a row.
"""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Iterable, Iterator, Mapping

from drytrack.core._history import Attempt
from drytrack.core._warn import warn
from drytrack.core.exceptions import RecordWarning
from drytrack.trackers._line_file import LineFile, replacing, whole_lines

MAX_COLUMNS = 256
"""Metrics up to which a file stays wide."""

FREE_REWRITES_BYTES = 1_048_576
MAX_REWRITES = 16
"""How often, roughly, a file above the size that is free is rewritten."""

_CHUNK = 1_048_576
_FIXED = ("attempt", "rewind", "seq")
_TAIL = 65_536

Point = tuple[str, Attempt, int, float]
"""Metric, attempt, step and value."""


def csv_line(cells: Iterable[object]) -> str:
    """Return a line of CSV, cells quoted where they must be."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


class SeriesFile:
    """Writes the metrics that share a model, a source and an axis.

    A row is with the kernel before `add` returns; see `LineFile`. After an
    `OSError` the file holds all earlier rows, and the next one can be added.
    """

    def __init__(self, path: pathlib.Path, axis: str) -> None:
        """Choose the file; one that exists is continued.

        Args:
            path: The file.
            axis: What its steps count, such as ``epoch``.
        """
        self.lines = LineFile(path)
        self.axis = axis
        self._is_known = False  # whether the three below are as on disk
        self._is_long = False
        self._names: tuple[str, ...] = ()
        self._known: set[str] = set()
        self._quoted: dict[str, str] = {}
        self._rewritten = 0

    def add(
        self, step: int, metrics: Mapping[str, float], attempt: Attempt, seq: int | str
    ) -> None:
        """Append the metrics of a step.

        Args:
            step: The step or epoch.
            metrics: Name → value; with none, nothing is written.
            attempt: The attempt that they are of.
            seq: Their sequence number; "" for none.

        Raises:
            OSError: If they cannot be written.
            ValueError: If the file is somebody else's.
        """
        if not metrics:
            return
        try:
            if tuple(metrics) == self._names:
                cells = ",".join(map(repr, metrics.values()))
                rows = f"{step},{attempt[0]},{attempt[1]},{seq},{cells}\n"
            else:
                at = f"{step},{attempt[0]},{attempt[1]},{seq}"
                rows = self._compose(at, metrics)
            self.lines.append(rows.encode())
        except BaseException:
            self._is_known, self._names = False, ()
            raise

    def _compose(self, at: str, metrics: Mapping[str, float]) -> str:
        """Return the rows for metrics that are not just the columns."""
        if not self._is_known:
            self._read_header()
        header = ""
        new = [name for name in metrics if name not in self._known]
        if new and not self._is_long:
            header = self._extend(new)
        if self._is_long:
            rows = [f"{self._quote(n)},{at},{v!r}\n" for n, v in metrics.items()]
            return header + "".join(rows)
        cells = [repr(metrics[n]) if n in metrics else "" for n in self._names]
        return f"{header}{at},{','.join(cells)}\n"

    def _quote(self, name: str) -> str:
        quoted = self._quoted.get(name)
        if quoted is None:
            quoted = self._quoted[name] = csv_line([name])[:-1]
        return quoted

    # -- the header ------------------------------------------------------------

    def _read_header(self) -> None:
        """Take over the columns of the file, whoever wrote it."""
        file = self.lines.open()
        self._set_columns((), is_long=False)
        if file.seek(0, io.SEEK_END):
            header = next(whole_lines(self.lines.path))
            names = _parse_header(header, self.axis, self.lines.path)
            self._set_columns(names or (), is_long=names is None)

    def _set_columns(self, names: tuple[str, ...], *, is_long: bool) -> None:
        self._is_known = True
        self._is_long = is_long
        self._names = names
        self._known = set(names)

    def _extend(self, new: list[str]) -> str:
        """Add columns, or go long; return the header where there is none yet."""
        path = self.lines.path
        names = (*self._names, *new)
        size = self.lines.open().seek(0, io.SEEK_END)
        worn = self._rewritten > FREE_REWRITES_BYTES + MAX_REWRITES * size
        is_long = worn or len(names) > MAX_COLUMNS
        if is_long:
            header = csv_line(["metric", self.axis, *_FIXED, "value"])
        else:
            header = csv_line([self.axis, *_FIXED, *names])
        if size:
            # On Windows an open file cannot be replaced.
            self.lines.close()
            if is_long:
                _write_long(path, header, self._names)
            else:
                _write_wider(path, header, len(new))
            self._rewritten += size
        self._set_columns(() if is_long else names, is_long=is_long)
        return "" if size else header


def _parse_header(line: str, axis: str, path: pathlib.Path) -> tuple[str, ...] | None:
    """Return the metrics of a wide file; None for a long one."""
    cells = next(csv.reader([line]))
    if cells == ["metric", axis, *_FIXED, "value"]:
        return None
    if cells[:4] != [axis, *_FIXED]:
        msg = (
            f"{path} does not begin with {axis},attempt,rewind,seq, so it was written "
            f"by something else. Move it away, or choose another run id."
        )
        raise ValueError(msg)
    return tuple(cells[4:])


def _write_wider(path: pathlib.Path, header: str, n_new: int) -> None:
    """Rewrite a wide file with more columns, empty in its rows."""
    padding = b"," * n_new + b"\n"
    with replacing(path) as new, path.open("rb") as old:
        old.readline()
        new.write(header.encode())
        while chunk := old.read(_CHUNK):
            new.write(chunk.replace(b"\n", padding))


def _write_long(path: pathlib.Path, header: str, names: tuple[str, ...]) -> None:
    """Rewrite a wide file as a long one."""
    quoted = [csv_line([name])[:-1] for name in names]
    with replacing(path) as new, path.open("rb") as old:
        old.readline()
        new.write(header.encode())
        for line in old:  # past the header cells are numbers, never quoted
            step, start, rewind, seq, *cells = line.decode().rstrip("\n").split(",")
            at = f"{step},{start},{rewind},{seq}"
            rows = zip(quoted, cells, strict=True)
            text = "".join(f"{name},{at},{cell}\n" for name, cell in rows if cell)
            new.write(text.encode())


def newest_seq(path: pathlib.Path) -> int:
    """Return the sequence number in the last whole row of a file; 0 for none."""
    try:
        with path.open("rb") as file:
            header = file.readline()
            if not header.endswith(b"\n"):
                return 0
            file.seek(max(len(header), file.seek(0, io.SEEK_END) - _TAIL))
            rows = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return 0
    try:
        place = next(csv.reader([header.decode()])).index("seq")
        cells = next(csv.reader([rows[-1].decode()]))
        return int(cells[place] or 0)
    except (IndexError, ValueError, StopIteration):
        return 0


# -- reading -------------------------------------------------------------------


def read_points(path: pathlib.Path, axis: str) -> Iterator[Point]:
    """Yield the values of a file in the order in which they were written.

    A torn last row is left out silently, rows that are damaged otherwise with
    one `RecordWarning`.

    Args:
        path: The file; a missing or empty one has no values.
        axis: What its steps count.

    Raises:
        ValueError: If the file is somebody else's.
    """
    if not path.exists():
        return
    lines = whole_lines(path)
    header = next(lines, None)
    if header is None:
        return
    names = _parse_header(header, axis, path)
    n_cells = 6 if names is None else 4 + len(names)
    damaged = 0
    for row in csv.reader(lines):
        try:
            if len(row) != n_cells:
                raise ValueError(row)  # noqa: TRY301  # counted below
            if names is None:
                at, metrics, values = row[1:4], row[:1], [float(row[5])]
            else:
                at, cells = row[:3], zip(names, row[4:], strict=True)
                metrics = [name for name, cell in cells if cell]
                values = [float(cell) for cell in row[4:] if cell]
            step, *attempt = map(int, at)
        except ValueError:
            damaged += 1
            continue
        for metric, value in zip(metrics, values, strict=True):
            yield metric, (attempt[0], attempt[1]), step, value
    if damaged:
        msg = (
            f"{path} holds {damaged} rows that cannot be read; they are left out. "
            f"Compare it with the run's journal."
        )
        warn(msg, RecordWarning)
