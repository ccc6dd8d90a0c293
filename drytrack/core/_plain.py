"""Turn any object into plain data: what a record, a journal or a backend can hold.

The objects come from users' configurations and trainers, so nothing about them
is trusted: every answer that is theirs may raise, lie or go on for ever. This
module keeps the limits; `_plain_types` knows how each type is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import TypeAlias

from drytrack.core._plain_types import (
    Unreadable,
    attempt,
    class_name,
    convert,
    read_instance,
)
from drytrack.core._secrets import MASK, is_secret_key, mask_text

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"

# One call never makes more than this, however its value nests.
_MAX_NODES = 20_000
_MAX_CHARS = 2_000_000
_MAX_KEY = 500
# Read beyond the cut, so that a secret across it is seen whole and masked.
_MARGIN = 1_000

_MORE = "..."
_TRUNCATED = "<truncated>"
_UNREADABLE = "<unreadable: RecursionError>"


def to_plain(
    value: object,
    *,
    max_depth: int = 10,
    max_items: int = 1000,
    max_text: int = 10_000,
) -> Plain:
    """Turn any object into plain data, with its secrets masked.

    It never raises (KeyboardInterrupt and SystemExit pass), takes bounded time
    unless the object's own code does not, ends on cycles, consumes no iterator
    and copies no large array. What cannot be shown becomes a text in angle
    brackets. Converting the result again changes nothing.

    Args:
        value: Anything.
        max_depth: Containers inside each other that are opened.
        max_items: Items kept of one container; a note tells how many are missing.
        max_text: Characters kept of one text.

    Returns:
        Data that JSON can hold, but for NaN and infinite floats, which stay
        floats: integers have at most 64 bits (larger ones become text), text
        can be encoded as UTF-8, keys that become equal as text stay apart.
    """
    try:
        return Walk(max_depth, max_items, max_text).visit(value)
    except RecursionError:  # The caller left no stack to work on.
        return _UNREADABLE


def describe(obj: object) -> dict[str, Plain]:
    """Describe a model, a trainer or another actor, as metadata of a run.

    Args:
        obj: The object to describe.

    Returns:
        The class name under ``class``, then the public attributes that are no
        functions; under ``value`` the object as plain data if it has none.
    """
    try:
        walk = Walk(max_depth=5, max_items=100, max_text=2_000)
        plain = walk.visit(obj)
        if not isinstance(plain, dict):
            # A module has a good text for a configuration; here its settings count.
            attributes = walk.guard(read_instance, obj)
            if isinstance(attributes, dict) and len(attributes) > 1:
                plain = attributes
    except RecursionError:
        plain = _UNREADABLE
    if not isinstance(plain, dict):
        return {"class": class_name(type(obj)), "value": plain}
    return plain if "class" in plain else {"class": class_name(type(obj)), **plain}


class Walk:
    """One conversion: its limits, what is left of them, and where it stands."""

    def __init__(self, max_depth: int, max_items: int, max_text: int) -> None:
        self.max_depth = max_depth
        self.max_items = max_items
        self.max_text = max_text
        self.objects_open = 0
        self._nodes_left = _MAX_NODES
        self._chars_left = _MAX_CHARS
        self._open: dict[int, object] = {}
        self._path: list[str] = []

    def visit(self, value: object) -> Plain:
        """Convert one value, whatever it is."""
        self._nodes_left -= 1
        if value is None or type(value) is bool or type(value) is float:
            return value
        if type(value) is str:
            return self.text(value)
        return self.guard(convert, value)

    def guard(self, read: Callable[[Walk, object], Plain], value: object) -> Plain:
        """Convert one value with the given reader, which may raise."""
        plain: Plain | Unreadable = attempt(read, self, value)
        return self.text(plain.text) if isinstance(plain, Unreadable) else plain

    def text(self, text: str) -> str:
        """Make a text exact, encodable, free of secrets and short enough."""
        size = str.__len__(text)
        # The method of str itself: a subclass cannot interfere.
        kept = str.__getitem__(text, slice(self.max_text + _MARGIN))
        if not kept.isascii():
            # Joins surrogate pairs and replaces lone ones, which no UTF-8 holds.
            units = kept.encode("utf-16-le", "surrogatepass")
            kept = units.decode("utf-16-le", "replace")
        kept = mask_text(kept)
        if size > self.max_text or len(kept) > self.max_text:
            note = f"... ({size} characters)"
            kept = kept[: max(0, self.max_text - len(note))] + note
            kept = kept[: self.max_text]
        self._chars_left -= len(kept)
        return kept

    def mapping(
        self,
        owner: object,
        pairs: Iterable[tuple[object, object]],
        size: int | None = None,
    ) -> Plain:
        """Make a dict of the owner's pairs, whose number is given if known."""
        if size == 0:
            return {}
        if (refusal := self._refusal(owner, size)) is not None:
            return refusal
        plain: dict[str, Plain] = {}
        self._open[id(owner)] = owner
        try:
            taken = list(islice(pairs, self.max_items + 1))
            for key, item in taken[: self._room(len(taken))]:
                name = self._name(key)
                own_name = _free_name(name, key, plain)
                entry = self._enter(own_name, item)
                # Numbers and flags under such a name are settings: token=5.
                hidden = isinstance(entry, str | list | dict) and bool(entry)
                if hidden and (is_secret_key(name) or is_secret_key(own_name)):
                    entry = MASK
                plain[own_name] = entry
                if self._is_spent:
                    break
            if note := self._note(len(plain), len(taken), size):
                plain[_free_name(_MORE, _MORE, plain)] = note
        finally:
            self._close(owner)
        return plain

    def sequence(
        self, owner: object, items: Iterable[object], size: int | None = None
    ) -> Plain:
        """Make a list of the owner's items, whose number is given if known."""
        if size == 0:
            return []
        if (refusal := self._refusal(owner, size)) is not None:
            return refusal
        plain: list[Plain] = []
        self._open[id(owner)] = owner
        try:
            taken = list(islice(items, self.max_items + 1))
            for item in taken[: self._room(len(taken))]:
                plain.append(self._enter(str(len(plain)), item))
                if self._is_spent:
                    break
            if note := self._note(len(plain), len(taken), size):
                plain.append(note)
        finally:
            self._close(owner)
        return plain

    @property
    def _is_spent(self) -> bool:
        return self._nodes_left <= 0 or self._chars_left <= 0

    def _refusal(self, owner: object, size: int | None) -> str | None:
        if id(owner) in self._open:
            path = self._path[: list(self._open).index(id(owner))]
            return self.text(f"<cycle to '{'.'.join(path)}'>")
        if len(self._open) >= self.max_depth:
            count = "" if size is None else f" of {size} items"
            return self.text(f"<{class_name(type(owner))}{count}>")
        return None

    def _enter(self, step: str, item: object) -> Plain:
        self._path.append(step)
        try:
            return self.visit(item)
        finally:
            self._path.pop()

    def _close(self, owner: object) -> None:
        del self._open[id(owner)]

    def _room(self, taken: int) -> int:
        # One place is for the note, so that the result is within the limit.
        return taken if taken <= self.max_items else max(0, self.max_items - 1)

    def _note(self, kept: int, taken: int, size: int | None) -> str:
        if kept == taken:
            return ""
        if self._is_spent:
            return _TRUNCATED
        # It counts like an item, which it will be if the result is converted.
        return self.text(f"<{'' if size is None else f'{size - kept} '}more items>")

    def _name(self, key: object) -> str:
        plain = key if type(key) is str else self.visit(key)
        return self.text(plain if isinstance(plain, str) else str(plain))[:_MAX_KEY]


def _free_name(name: str, key: object, taken: Mapping[str, Plain]) -> str:
    free, count = name, 1
    while free in taken:
        number = "" if count == 1 else f" {count}"
        ending = f" ({class_name(type(key))[:50]}{number})"
        free = name[: _MAX_KEY - len(ending)] + ending
        count += 1
    return free
