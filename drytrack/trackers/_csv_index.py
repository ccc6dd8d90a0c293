"""What the files in a run's CSV folder hold: ``index.jsonl``.

A file name cannot always give the true name back (it may be too long, or differ
from another in case alone), so each file has a line here, written before the
file is, and so has each start and rewind of the run::

    {"kind": "attempt", "number": 1, "attempt": 1, "run_ts": "2026-11-20 23:12:01"}
    {"kind": "metrics", "model": "mlp", "source": "train", "axis": "epoch", "file": …}
    {"kind": "rewind", "model": "mlp", "start": 1, "seq": 52}
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from drytrack.core._names import encode_file_name
from drytrack.core.log_events import StartExperimentEvent
from drytrack.trackers._line_file import LineFile, whole_lines

INDEX = "index.jsonl"
_OUR_ENDINGS = (".csv", ".json", ".jsonl", ".tmp")


def read_index(folder: pathlib.Path) -> Iterator[dict[str, object]]:
    """Yield the entries of a run's index; none where there is no index."""
    path = folder / INDEX
    for line in whole_lines(path) if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:  # a block that a loss of power left unwritten
            continue
        if isinstance(entry, dict):
            yield entry


class Index:
    """The index of a run that is being written.

    Attributes:
        number: Number of this start in the folder. It is that of the run's
            attempt, unless the folder has seen as many already: an unrecorded
            run whose id was used before does not know of its predecessor.
        rewinds: (start, model) → how often it has been rewound since.
        rewound_at: Sequence number of the newest rewind in the journal.
    """

    def __init__(self, folder: pathlib.Path, start: StartExperimentEvent) -> None:
        """Read what is there and note the start.

        Args:
            folder: The run's folder.
            start: The start event; told again, it is no new start.

        Raises:
            OSError: If the folder cannot be written.
        """
        self.folder = folder
        self.rewinds: dict[tuple[int, str], int] = {}
        self.rewound_at = 0
        self.number = 0
        self._lines = LineFile(folder / INDEX)
        self._files: dict[tuple[tuple[str, object], ...], str] = {}
        self._taken: set[str] = set()
        self._lines.open()
        starts: list[dict[str, object]] = []
        for entry in read_index(folder):
            if entry.get("kind") == "attempt":
                starts.append(entry)
                self.number = int(str(entry["number"]))
            elif entry.get("kind") == "rewind":
                self._count_rewind(entry)
            elif "file" in entry:
                file = str(entry.pop("file"))
                self._remember(tuple(entry.items()), file)
        told = {"attempt": start.attempt, "run_ts": str(start.run_ts)}
        stamp = start.stamp
        if stamp is not None and stamp.seq > 0:  # a journal says which start it is
            self.number = start.attempt
            is_new = all({**entry, **told} != entry for entry in starts)
        else:
            is_new = not starts or {**starts[-1], **told} != starts[-1]
            if is_new:
                self.number = max(start.attempt, self.number + 1)
        if is_new:
            self._write({"kind": "attempt", "number": self.number, **told})

    @property
    def files(self) -> list[pathlib.Path]:
        """The files that grow by rows, tables left out."""
        return [
            self.folder / file
            for key, file in self._files.items()
            if ("kind", "table") not in key
        ]

    def find(
        self, folders: Sequence[str], stem: str, ending: str, labels: Mapping[str, str]
    ) -> pathlib.Path:
        """Return the file for some labels, the same one every time.

        Args:
            folders: Names of the folders that it lies in.
            stem: The name that begins its file name.
            ending: What ends it, such as ``-steps.csv``.
            labels: What it holds; ``kind`` among them.

        Raises:
            OSError: If it is a new one and cannot be noted.
        """
        key = tuple(labels.items())
        if key not in self._files:
            parts = [_folder_name(folder) for folder in folders]
            file = "/".join([*parts, encode_file_name(stem, ending)])
            if file.casefold() in self._taken:
                digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
                ending = f"%~{digest}{ending}"
                file = "/".join([*parts, encode_file_name(stem, ending)])
            self._write({**labels, "file": file})
            self._remember(key, file)
        return self.folder / self._files[key]

    def note_rewind(self, model_name: str, start: int, seq: int) -> None:
        """Note that a model goes on from an earlier epoch.

        Args:
            model_name: The model.
            start: Number of the start that it followed.
            seq: Sequence number of the event; 0 for none.

        Raises:
            OSError: If it cannot be noted.
        """
        entry = {"kind": "rewind", "model": model_name, "start": start, "seq": seq}
        self._write(entry)
        self._count_rewind(entry)

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def _write(self, entry: Mapping[str, object]) -> None:
        self._lines.append(f"{json.dumps(entry, ensure_ascii=False)}\n".encode())

    def _remember(self, key: tuple[tuple[str, object], ...], file: str) -> None:
        self._files[key] = file
        self._taken.add(file.casefold())

    def _count_rewind(self, entry: Mapping[str, object]) -> None:
        key = int(str(entry.get("start", self.number))), str(entry["model"])
        self.rewinds[key] = self.rewinds.get(key, 0) + 1
        self.rewound_at = max(self.rewound_at, int(str(entry.get("seq", 0))))


def _folder_name(name: str) -> str:
    encoded = encode_file_name(name)
    # Files end so, hence no folder does: neither can be in the other's place.
    if encoded.lower().endswith(_OUR_ENDINGS):
        return encode_file_name(name, "%~")
    return encoded
