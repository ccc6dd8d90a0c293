"""How a metric's name is written where not every character is taken."""

from __future__ import annotations

import hashlib
import re
import sys

__all__ = ["NameRule"]

DIGEST_LENGTH = 16
"""Hexadecimal digits that stand for the whole of a name that was cut."""


class NameRule:
    r"""Adapts names to what a backend accepts, and gives them back.

    A character that is refused is written as its code point in hexadecimal
    between two marks: with the default marks ``loss%`` becomes ``loss_x25_``.
    A name that holds the beginning of such an escape by chance has its mark
    escaped, so that no two names are ever written alike.

    Args:
        allowed: A regular expression for one character that is accepted. It
            must accept letters, digits, and the marks.
        refused: A regular expression for what is refused although its
            characters are accepted, such as ``r"^/|//"``.
        start: Mark before an escape, not empty.
        end: Mark behind an escape, not empty.
        max_length: The most characters that are accepted; None for any number.
    """

    def __init__(
        self,
        allowed: str = r".",
        *,
        refused: str | None = None,
        start: str = "_x",
        end: str = "_",
        max_length: int | None = None,
    ) -> None:
        self._allowed = re.compile(allowed, re.DOTALL)
        self._refused = re.compile(refused) if refused else None
        self._start = start
        self._end = end
        self._max_length = max_length
        self._escape = re.compile(
            f"{re.escape(start)}([0-9a-f]{{1,6}}){re.escape(end)}"
        )
        # Also where no end follows: that of the next escape could be taken for it.
        self._hazard = re.compile(f"{re.escape(start)}(?=[0-9a-f])")
        self._adapted: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def adapt(self, name: str) -> str:
        """Return the name as the backend takes it.

        Args:
            name: Any name.

        Returns:
            The same for the same name, and for no other one.
        """
        adapted = self._adapted.get(name)
        if adapted is None:
            adapted = self._adapted[name] = self._adapt(name)
            self._names[adapted] = name
        return adapted

    def restore(self, adapted: str) -> str:
        """Return the name that was adapted.

        Args:
            adapted: What `adapt` has returned, in this process or another one.

        Returns:
            The name. One that had to be cut is known in the process that cut it
            alone; elsewhere what is left of it is returned.
        """
        if adapted in self._names:
            return self._names[adapted]
        return self._escape.sub(_read_escape, adapted)

    def _adapt(self, name: str) -> str:
        bad = {i for i, char in enumerate(name) if not self._allowed.fullmatch(char)}
        bad.update(found.start() for found in self._hazard.finditer(name))
        if self._refused is not None:
            for found in self._refused.finditer(name):
                bad.update(range(*found.span()))
        adapted = "".join(
            self._write(char) if i in bad else char for i, char in enumerate(name)
        )
        if self._max_length is None or len(adapted) <= self._max_length:
            return adapted
        digest = hashlib.sha256(name.encode()).hexdigest()[:DIGEST_LENGTH]
        head = adapted[: max(0, self._max_length - DIGEST_LENGTH - 1)]
        return f"{head}_{digest}"[-self._max_length :]

    def _write(self, char: str) -> str:
        return f"{self._start}{ord(char):x}{self._end}"


def _read_escape(found: re.Match[str]) -> str:
    code = int(found[1], 16)
    # What is beyond was never a character, nor written by a rule.
    return chr(code) if code <= sys.maxunicode else found[0]
