"""How far the files go that a tool writes, noted beside them."""

from __future__ import annotations

import json
import pathlib

from drytrack.core._atomic import replace_file

__all__ = ["find_note", "read_seq", "write_seq"]


def find_note(folder: pathlib.Path, identity: str) -> pathlib.Path:
    """Return the note of a run in a folder that all runs share."""
    return folder / f"{identity.replace('-', '')}.drytrack.json"


def read_seq(note: pathlib.Path, uuid: str | None = None) -> int:
    """Return the sequence number that a note holds; 0 where there is none.

    Args:
        note: The note.
        uuid: The run that it must be of; None where its name says that.
    """
    try:
        kept = json.loads(note.read_bytes())
        return int(kept["seq"]) if kept.get("uuid") == uuid else 0
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0


def write_seq(note: pathlib.Path, seq: int, uuid: str | None = None) -> None:
    """Note the newest sequence number that is in the files beside the note."""
    kept = {"seq": seq} if uuid is None else {"uuid": uuid, "seq": seq}
    replace_file(note, json.dumps(kept).encode())
