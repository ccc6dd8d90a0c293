"""How far the files go that a tool writes for a later upload."""

from __future__ import annotations

import json
import pathlib

from drytrack.core._atomic import replace_file

__all__ = ["read_seq", "write_seq"]


def read_seq(note: pathlib.Path) -> int:
    """Return the sequence number that a note holds; 0 where there is none."""
    try:
        return int(json.loads(note.read_bytes())["seq"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def write_seq(note: pathlib.Path, seq: int) -> None:
    """Note the newest sequence number that is in the files beside the note."""
    replace_file(note, json.dumps({"seq": seq}).encode())
