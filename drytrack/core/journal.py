"""The journal of a run: every event, one line each, and its readers.

``journal.jsonl`` in the run's folder is JSON Lines; each line is one object::

    {"v":1,"type":"MetricEvent","attempt":1,"seq":7,"time_us":1795229927600000,
     "fields":{…},"crc":2841312983}

``time_us`` counts microseconds since the epoch; fields that are as by default
are left out; ``crc`` is the CRC-32 (as zlib computes it) of the line's bytes before
``,"crc"``. Types outside of drytrack are ``module:QualName``. What JSON does
not know is tagged (`drytrack.core._codec`); large content is in ``blobs/``.
"""

from __future__ import annotations

import collections
import contextlib
import gzip
import itertools
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from os import write
from time import monotonic, sleep, time_ns
from typing import IO, NamedTuple
from zlib import crc32

from drytrack.core import _codec
from drytrack.core._atomic import replace_file
from drytrack.core._codec import dumps
from drytrack.core._frozen import FrozenDict
from drytrack.core._record import read_record
from drytrack.core.exceptions import JournalError, RecordError
from drytrack.core.log_events import Event, StepMetricEvent

__all__ = ["Damage", "JournalReader", "JournalWriter", "Position", "compact"]

VERSION = 1
"""Version of the line format; newer ones are refused, older ones read."""

FILE = "journal.jsonl"
COMPACT_FILE = "journal.jsonl.gz"
BLOBS = "blobs"

MAX_LINE = 64 * 1024 * 1024
"""Bytes of a line above which it is damage, and is not read into memory."""

MAX_BACKLOG = 8 * 1024 * 1024
"""Bytes of lines that wait in memory while the disk takes none."""

RETRY_S = 0.2
"""Pause between two tries to write to a disk that had refused."""

CATCH_UP_LINES = 1_000
"""Waiting lines that one event takes along, so that none takes long."""

MAX_TYPES = 1_000
"""Type names whose classes a reader remembers."""

MAX_BLOBS = 1024 * 1024 * 1024
"""Bytes of all blobs of one line above which it is damage."""

MAX_SHAPES = 10_000
"""Sources whose events are written in the short way, at the most."""

_HEAD = b'{"v":%d,"type":' % VERSION
_CRC = b',"crc":'
_BAD_GZIP = (EOFError, zlib.error, gzip.BadGzipFile)
_set_stamp: Callable[[Event, tuple[int, int, float]], None]
_set_stamp = vars(Event)["_stamp"].__set__  # the slot: events are frozen


class Position(NamedTuple):
    """A place between two lines.

    Attributes:
        seq: Sequence number of the line before it; 0 at the beginning.
        offset: Bytes from the beginning of the uncompressed journal.
    """

    seq: int = 0
    offset: int = 0


BEGINNING = Position()


class Damage(NamedTuple):
    """A line that could not be read.

    Attributes:
        offset: Where it begins, in bytes.
        reason: What is wrong with it.
    """

    offset: int
    reason: str


class JournalWriter:
    """Appends events to the journal of a run; used under the lock of its bus.

    A line is complete, and with the kernel, when `append` returns: it survives
    a kill of the process. While the disk refuses, lines wait in memory (at
    most 8 MiB), and are written in order when it takes them again.

    Attributes:
        seq: The last sequence number given.
        line_bytes: Length of the last line and its blobs.
        steps: The last step of each source, when the journal was opened.
        missing: First and last sequence numbers of what is not in the file,
            because neither the disk nor the memory held it.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        attempt: int,
        *,
        sync: bool = False,
        scan_from: int = 0,
        at_least: int = 0,
        tell: Callable[[str], None],
    ) -> None:
        """Open the journal at its end.

        Args:
            folder: The run's folder.
            attempt: Number of the attempt.
            sync: Whether every line is synced to disk.
            scan_from: The size that the file had when the steps of its sources
                were last known; what follows is read for them.
            at_least: A sequence number that was given before, as far as others
                know; it is not given again, though a lost machine took its line.
            tell: Called with what to say of a disk that refuses.

        Raises:
            OSError: If it cannot be opened.
            JournalError: If it was written by a newer version.
        """
        self.folder = folder
        self.attempt = attempt
        self.sync_always = sync
        self._tell = tell
        self.path = folder / FILE
        self.steps: dict[str, int] = {}
        self.missing: list[list[int]] = []
        self.line_bytes = 0
        self._blob_bytes = 0
        self.dropped = 0
        self._head = (
            f'{{"v":{VERSION},"type":"StepMetricEvent","attempt":{attempt},"seq":'
        )
        self._shapes: dict[tuple[str, str, str], tuple[str, bytes]] = {}
        self._backlog: collections.deque[tuple[int, bytes]] = collections.deque()
        self._backlog_bytes = 0
        self._written = 0  # of the first line that waits
        self._next_try = 0.0
        self._warned = False
        self._closed = False
        self._size = 0
        _expand(folder, tell)
        found, torn = _find_end(self.path, self.steps, scan_from)
        self.seq = max(found, at_least)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._fd = os.open(self.path, flags, 0o666)
        if torn:
            # What a dead process left unfinished becomes a line of its own.
            os.write(self._fd, b"\n")

    def append(self, event: Event) -> None:
        """Number an event, write its line, and hand it to the kernel."""
        seq = self.seq = self.seq + 1
        time_us = time_ns() // 1000
        _set_stamp(event, (seq, self.attempt, time_us / 1e6))
        # What comes with every step takes the short way: the same line as by the
        # long one, in a third of its time.
        if (
            event.__class__ is StepMetricEvent
            and event.metrics.__class__ is FrozenDict
            and not event.context
        ):
            key = (event.source_name, event.axis, event.model_name)
            source, rest = self._shapes.get(key) or self._add_shape(key)
            text = (
                f'{self._head}{seq},"time_us":{time_us}{source}{event.step},"metrics":'
            ).encode() + dumps(event.metrics)
            text += rest
            blob_bytes = 0
        else:
            self._blob_bytes = 0
            line = event._as_line(seq, self.attempt, time_us)
            try:
                text = _codec.encode_event(line, event, self.put_blob)[:-1]
            except OSError as error:  # a blob that the disk does not take
                self._give_up(seq, error)
                return
            blob_bytes = self._blob_bytes
        text += b',"crc":%d}\n' % crc32(text)
        self.line_bytes = len(text) + blob_bytes
        if self._backlog:
            self._wait(seq, text)
            return
        try:
            written = write(self._fd, text)
        except OSError as error:
            self._refused(seq, text, 0, error)
            return
        if written != len(text):
            self._refused(seq, text, written, OSError("the line was cut"))
        elif self.sync_always:
            self.sync()

    def _add_shape(self, key: tuple[str, str, str]) -> tuple[str, bytes]:
        """Return what stands around the step and metrics of a source's events."""
        source_name, axis, model_name = key
        before = f',"fields":{{"source_name":{_json(source_name)},"step":'
        after = "" if axis == "step" else f',"axis":{_json(axis)}'
        after += f',"model_name":{_json(model_name)}' if model_name else ""
        if len(self._shapes) >= MAX_SHAPES:
            self._shapes.clear()
        shape = self._shapes[key] = (before, f"{after}}}".encode())
        return shape

    def put_blob(self, data: bytes) -> str:
        """Keep content under its hash; the same content is kept once.

        Raises:
            OSError: If it cannot be written.
        """
        name = _codec.blob_name(data)
        self._blob_bytes += len(data)
        path = self.folder / BLOBS / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            replace_file(path, data, sync=self.sync_always)
        return name

    def sync(self) -> None:
        """Have the file on disk before returning, so far as it can be."""
        self.settle()
        try:
            os.fsync(self._fd)
        except OSError as error:
            self._warn(error)

    def settle(self) -> None:
        """Try to write what waits in memory."""
        self._write_backlog(len(self._backlog))

    def close(self) -> None:
        """Sync and close; what could not be written is said in `missing`."""
        if self._closed:
            return
        self.sync()
        if self._backlog:
            self.missing.append([self._backlog[0][0], self._backlog[-1][0]])
            self._backlog.clear()
        self._size, self._closed = self.size, True
        os.close(self._fd)

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self._size if self._closed else os.fstat(self._fd).st_size

    @property
    def incomplete_from(self) -> int | None:
        """The first sequence number that is not in the file; None if all are."""
        waiting = [self._backlog[0][0]] if self._backlog else []
        return min([first for first, _ in self.missing] + waiting, default=None)

    def lost_upto(self, seq: int) -> int:
        """Return the end of the gap that an event is in; 0 where it is in none."""
        return max(
            (last for first, last in self.missing if first <= seq <= last), default=0
        )

    def waiting(self, after: int, limit: int) -> list[bytes]:
        """Return lines that wait for the disk, behind a sequence number."""
        lines = (line for seq, line in self._backlog if seq > after)
        return [line.lstrip(b"\n") for line in itertools.islice(lines, limit)]

    # -- a disk that refuses -----------------------------------------------------

    def _refused(self, seq: int, line: bytes, written: int, error: OSError) -> None:
        """Take back half a line, and keep the whole of it in memory."""
        if written:
            with contextlib.suppress(OSError):  # seen by `written`
                os.ftruncate(self._fd, self.size - written)
                written = 0
        if written:  # it cannot be taken back: end it, and write it again after
            line = b"\n" + line
        self._backlog.append((seq, line))
        self._backlog_bytes += len(line)
        self._next_try = monotonic() + RETRY_S
        self._warn(error)

    def _wait(self, seq: int, line: bytes) -> None:
        if self._backlog_bytes + len(line) > MAX_BACKLOG:
            self._note_missing(seq)
        else:
            self._backlog.append((seq, line))
            self._backlog_bytes += len(line)
        if monotonic() >= self._next_try:
            self._write_backlog(CATCH_UP_LINES)

    def _give_up(self, seq: int, error: OSError) -> None:
        self._note_missing(seq)
        self._warn(error)

    def _note_missing(self, seq: int) -> None:
        self.dropped += 1
        if self.missing and self.missing[-1][1] == seq - 1:
            self.missing[-1][1] = seq
        else:
            self.missing.append([seq, seq])

    def _write_backlog(self, limit: int) -> None:
        for _ in range(min(limit, len(self._backlog))):
            _, line = self._backlog[0]
            with contextlib.suppress(OSError):  # seen by `_written`
                self._written += os.write(self._fd, line[self._written :])
            if self._written != len(line):
                self._next_try = monotonic() + RETRY_S
                return
            self._backlog.popleft()
            self._backlog_bytes -= len(line)
            self._written = 0
        if not self._backlog:
            self._warned = False

    def _warn(self, error: OSError) -> None:
        if self._warned:
            return
        self._warned = True
        msg = (
            f"{self.path} cannot be written from event {self.seq} on: {error}. The run "
            f"goes on; events wait in memory (at most {MAX_BACKLOG >> 20} MiB) until "
            f"there is room. Free some."
        )
        self._tell(msg)


def _json(text: str) -> str:
    return dumps(text).decode()


def _expand(folder: pathlib.Path, tell: Callable[[str], None]) -> None:
    """Undo `compact`, so that a finished run can go on."""
    packed = folder / COMPACT_FILE
    if not packed.exists() or (folder / FILE).exists():
        return
    beside = folder / f".{FILE}.{os.getpid()}"
    try:
        with beside.open("wb") as target, gzip.open(packed) as source:
            while block := source.read1(1 << 16):
                target.write(block)
    except _BAD_GZIP as err:
        kept = packed.replace(folder / f"{COMPACT_FILE}.damaged")
        tell(
            f"{packed} is damaged ({err!r}); what follows is lost. It is kept: {kept}."
        )
    except OSError:  # no room for all of it
        beside.unlink(missing_ok=True)
        raise
    beside.replace(folder / FILE)
    packed.unlink(missing_ok=True)


def _find_end(
    path: pathlib.Path, steps: dict[str, int], scan_from: int
) -> tuple[int, bool]:
    """Return the last sequence number, and whether a line is torn."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return 0, False
    if not size:
        return 0, False
    with path.open("rb") as file:
        file.seek(max(0, size - 100_000))
        tail = file.read()
    torn = not tail.endswith(b"\n")
    seq = 0
    for start in (max(0, min(scan_from, size - 100_000)), 0):
        reader = JournalReader(path.parent)
        for event in reader.read(Position(0, start), aligned=start == 0):
            assert event.stamp is not None  # all that are read have one
            seq = max(seq, event.stamp.seq)
            if isinstance(event, StepMetricEvent):
                steps[event.source_name] = event.step
        if seq:
            break
    # A damaged last line had a number too, which trackers may have seen; not so a
    # torn one, whose event had never been published.
    whole = tail[: tail.rfind(b"\n") + 1].split(b"\n")[1:]
    last = max((_seq_of(line) or 0 for line in whole), default=0)
    return (last if seq < last < seq + 1000 else seq), torn


class JournalReader:
    """Reads the events of a run, also while they are written.

    Attributes:
        folder: The run's folder.
        bytes_read: Bytes of lines and blobs that have been read.
        damaged: How many lines could not be read.
        damage: The first hundred of them.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Choose a run.

        Args:
            folder: The run's folder, or the journal itself.
        """
        folder = pathlib.Path(folder)
        self.folder = folder.parent if folder.is_file() else folder
        self._place = (0, 0)
        self.bytes_read = 0
        self.damaged = 0
        self.damage: list[Damage] = []
        self._types: dict[str, type[Event] | None] = {}

    @property
    def exists(self) -> bool:
        """Whether the run has a journal."""
        return any((self.folder / name).exists() for name in (FILE, COMPACT_FILE))

    @property
    def position(self) -> Position:
        """The place behind the last event that was read."""
        return Position(*self._place)

    def __iter__(self) -> Iterator[Event]:
        """Read from the beginning."""
        return self.read()

    def read(
        self,
        start: Position = BEGINNING,
        *,
        follow: bool = False,
        poll_s: float = 0.1,
        stop: Callable[[], bool] = lambda: False,
        aligned: bool = True,
    ) -> Iterator[Event]:
        """Read events, each with its original `Event.stamp`.

        Args:
            start: Where to begin; its offset may be 0, then events up to its
                ``seq`` are skipped.
            follow: Whether to wait for more at the end of the file.
            poll_s: Seconds between two looks at the end of the file; above 0.
            stop: Asked there; True ends the iteration.
            aligned: Whether the offset is the beginning of a line.

        Yields:
            The events, in their order, those of unknown type as `UnknownEvent`.

        Raises:
            JournalError: If there is no journal, or a newer version wrote it.
        """
        with self._open(follow=follow) as file:
            file.seek(start.offset)
            offset = start.offset
            if not aligned and offset:
                offset += len(file.readline(MAX_LINE))
            try:
                yield from self._read_lines(file, start, offset, follow, poll_s, stop)
            except _BAD_GZIP as err:
                self._note(offset, f"the rest cannot be decompressed: {err!r}")

    def _read_lines(  # the arguments of read
        self,
        file: IO[bytes],
        start: Position,
        offset: int,
        follow: bool,
        poll_s: float,
        stop: Callable[[], bool],
    ) -> Iterator[Event]:
        while True:
            line = file.readline(MAX_LINE)
            if not line.endswith(b"\n"):
                if len(line) >= MAX_LINE:
                    skipped = self._skip_line(file)
                    self._note(offset, f"longer than {MAX_LINE} bytes")
                    offset += len(line) + skipped
                    continue
                if follow and not stop():
                    file.seek(offset)
                    sleep(poll_s)
                    continue
                if line:
                    self._note(offset, "the end of the line is missing")
                return
            begin, offset = offset, offset + len(line)
            self.bytes_read += len(line)
            event = self._parse(line, begin)
            if event is None:
                for end, saved in self._salvage(line, begin):
                    if saved._stamp[0] > start.seq:
                        self._place = (saved._stamp[0], end)
                        yield saved
            elif (seq := event._stamp[0]) > start.seq:
                self._place = (seq, offset)
                yield event

    def parse(self, line: bytes) -> Event | None:
        """Return the event of a line that is not in the file; None if damaged."""
        return self._parse(line, 0)

    def find(self, seq: int) -> Position:
        """Return a place in the file at or before the line behind ``seq``.

        The file is searched by halves, since its sequence numbers ascend.

        Args:
            seq: A sequence number; 0 for the beginning.

        Returns:
            Where `read` can start; it skips what is up to ``seq``.
        """
        path = self.folder / FILE
        low = 0
        if seq and path.exists():
            with path.open("rb") as file:
                high = path.stat().st_size
                while high - low > 1 << 16:
                    middle = (low + high) // 2
                    file.seek(middle)
                    file.readline(MAX_LINE)
                    begin = file.tell()
                    found = _seq_of(file.readline(MAX_LINE))
                    if found is not None and found <= seq and begin < high:
                        low = begin
                    else:
                        high = middle
        return Position(seq, low)

    def get_blob(self, name: str) -> bytes:
        """Return the content of a blob.

        Raises:
            JournalError: If it is missing or is not what its name says.
        """
        if not (isinstance(name, str) and name.isalnum()):
            raise JournalError(f"{name!r:.80} is no name of a blob.")
        path = self.folder / BLOBS / name
        try:
            size = path.stat().st_size
            if size > MAX_BLOBS:
                msg = f"blob {name} is longer than {MAX_BLOBS} bytes: {size}."
                raise JournalError(msg)
            data = path.read_bytes()
            self.bytes_read += len(data)
        except OSError as err:
            raise JournalError(f"blob {name} cannot be read: {err}.") from err
        if _codec.blob_name(data) != name:
            raise JournalError(f"blob {name} is damaged: its hash is another.")
        return data

    def _open(self, *, follow: bool) -> IO[bytes]:
        path, packed = self.folder / FILE, self.folder / COMPACT_FILE
        if not path.exists() and packed.exists() and not follow:
            return gzip.open(packed)  # type: ignore[return-value]  # a binary file
        try:
            return path.open("rb", buffering=1 << 18)
        except OSError as err:
            msg = (
                f"{self.folder} has no journal to read: {err.strerror}. Pass the "
                f"folder of a recorded run."
            )
            raise JournalError(msg) from err

    def _skip_line(self, file: IO[bytes]) -> int:
        skipped = 0
        while part := file.readline(1 << 20):
            skipped += len(part)
            if part.endswith(b"\n"):
                break
        return skipped

    def _note(self, offset: int, reason: str) -> None:
        self.damaged += 1
        if len(self.damage) < 100:  # enough to look at
            self.damage.append(Damage(offset, reason))

    def _parse(self, line: bytes, offset: int) -> Event | None:
        try:
            cut = line.rfind(_CRC)
            if cut < 0 or crc32(line[:cut]) != int(line[cut + 7 : -2]):
                # Another version may check its lines in another way.
                self._refuse(line, offset, "its checksum is wrong")
                return None
            data = _codec.loads(line)
            version = data["v"]
            if version != VERSION:
                self._refuse(line, offset, f"its version is {version!r}")
                return None
            name, fields = data["type"], data["fields"]
            seq, attempt, time_us = data["seq"], data["attempt"], data["time_us"]
            if not (
                seq.__class__ is attempt.__class__ is time_us.__class__ is int
                and fields.__class__ is dict
                and name.__class__ is str
            ):
                self._note(offset, "an entry is not of its type")
                return None
            if b'"$' in line:
                blobs = _codec.Blobs(self.get_blob, MAX_BLOBS)
                fields = _codec.decode_fields(name, fields, blobs)
            try:
                cls = self._types[name]
            except KeyError:
                cls = _codec.find_type(name)
                if len(self._types) < MAX_TYPES:
                    self._types[name] = cls
            event = _codec.build_event(name, cls, fields)
            _set_stamp(event, (seq, attempt, time_us / 1e6))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
            if isinstance(err, JournalError) and _is_newer(line):
                raise
            self._note(offset, f"{type(err).__name__}: {str(err)[:200]}")
            return None
        return event

    def _salvage(self, line: bytes, begin: int) -> Iterator[tuple[int, Event]]:
        """Read lines that have lost the end of line between them.

        Yields:
            Where each ends, and its event.
        """
        first, *others = line.split(_HEAD)
        end = begin + len(first)
        for part in others if first or len(others) > 1 else ():
            at, end = end, end + len(_HEAD) + len(part)
            text = _HEAD + part[: part.rfind(b"}") + 1]
            if _has_checksum(text) and (event := self._parse(text + b"\n", at)):
                yield end, event

    def _refuse(self, line: bytes, offset: int, reason: str) -> None:
        """Note a damaged line; a newer version is an error.

        Raises:
            JournalError: If a newer version wrote the line.
        """
        if _is_newer(line) and not _has_checksum(_with_our_version(line)):
            msg = (
                f"The journal in {self.folder} was written by a newer drytrack (line "
                f"at byte {offset}). Update drytrack: pip install -U drytrack."
            )
            raise JournalError(msg)
        self._note(offset, reason)


def _seq_of(line: bytes) -> int | None:
    """Return the sequence number of a line that looks undamaged."""
    begin = line.find(b'"seq":')
    digits = line[begin + 6 : begin + 30].partition(b",")[0]
    return int(digits) if begin >= 0 and digits.isdigit() else None


def _has_checksum(line: bytes) -> bool:
    text, _, digits = line.rstrip(b"\n").rpartition(_CRC)
    return digits == b"%d}" % crc32(text)


def _with_our_version(line: bytes) -> bytes:
    """Return a line as it was, if nothing but its version is damaged."""
    return b'{"v":%d,' % VERSION + line.partition(b",")[2]


def _is_newer(line: bytes) -> bool:
    head = line[:20]
    if not head.startswith(b'{"v":'):
        return False
    digits = head[5:].partition(b",")[0]
    return digits.isdigit() and int(digits) > VERSION


def compact(folder: pathlib.Path) -> tuple[int, int]:
    """Compress the journal of a run that has ended; readers read it as it is.

    Args:
        folder: The run's folder.

    Returns:
        Bytes before and after.

    Raises:
        JournalError: If there is no journal to compress, or the run goes on.
    """
    _check_ended(folder)
    path, packed = folder / FILE, folder / COMPACT_FILE
    if not path.exists():
        msg = f"{folder} has no {FILE} to compress."
        raise JournalError(msg)
    beside = folder / f".{COMPACT_FILE}.{os.getpid()}"
    try:
        with path.open("rb") as source, gzip.open(beside, "wb", 6) as target:
            while block := source.read(1 << 20):
                target.write(block)
            copied = source.tell()
        # Somebody may have resumed it in the meantime.
        _check_ended(folder)
        sizes = path.stat().st_size, beside.stat().st_size
        if sizes[0] != copied:
            msg = f"The run in {folder} has gone on meanwhile. Compress it again."
            raise JournalError(msg)
        beside.replace(packed)
    finally:
        beside.unlink(missing_ok=True)
    path.unlink()
    return sizes


def _check_ended(folder: pathlib.Path) -> None:
    with contextlib.suppress(RecordError):  # nobody knows, so nobody objects
        if (status := read_record(folder).status) in ("running", "stalled"):
            msg = f"The run in {folder} is {status}. Compress it when it has ended."
            raise JournalError(msg)
