"""Which names are accepted, and how a name becomes a file name.

Names of models, sources and metrics may hold anything but control characters
and are encoded where they become file names. Experiment names and run ids
become folders as they are, so fewer are allowed.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote

from drytrack.core.exceptions import InvalidNameError

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
# A name becomes a column, a key, a label: past this length none of them holds.
MAX_NAME_LENGTH: Final = 1_000
# The limit of ext4, APFS (UTF-8 bytes) and NTFS (UTF-16 units) for one entry.
MAX_FOLDER_BYTES: Final = 255
_RESERVED: Final = re.compile(
    r"(?i)(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?"
)
_NOT_IN_FOLDERS: Final = re.compile(r'[/\\:*?"<>|]')
_SAFE: Final = " !#$&'()+,;=@[]^_`{}~-."

known_names: set[str] = set()
"""Names that passed the check, so that a repeated one costs a set look-up."""

_MAX_KNOWN: Final = 100_000


def check_name(name: object, what: str = "name") -> str:
    """Return a model, source or metric name that is fit to be kept.

    Args:
        name: The name.
        what: What it names, for the error.

    Raises:
        InvalidNameError: If it is no text, empty, longer than 1,000 characters,
            or holds control characters, line separators or lone surrogates.
    """
    if not isinstance(name, str):
        msg = (
            f"{what} must be text, got {type(name).__name__} {shorten(name)}. "
            f"Pass str(…) of it."
        )
        raise InvalidNameError(msg)
    # The content: str() of an enum member is its name.
    name = str.__str__(name)
    if not name:
        msg = f"{what} is empty. Give it a name of at least one character."
        raise InvalidNameError(msg)
    if len(name) > MAX_NAME_LENGTH:
        msg = (
            f"{what} {shorten(name)} has {len(name)} characters; at most "
            f"{MAX_NAME_LENGTH} are kept. Shorten it."
        )
        raise InvalidNameError(msg)
    if found := _CONTROL.search(name):
        msg = (
            f"{what} {shorten(name)} holds the control character {found[0]!r}. "
            f"Remove it or replace it."
        )
        raise InvalidNameError(msg)
    if len(known_names) >= _MAX_KNOWN:
        known_names.clear()
    known_names.add(name)
    return name


def check_folder_name(name: object, what: str) -> str:
    """Return an experiment name or run id that can be a folder everywhere.

    Args:
        name: The name.
        what: What it names, for the error.

    Raises:
        InvalidNameError: If it is no text, empty, over 255 bytes, reserved on
            Windows, ``.`` or ``..``, holds separators, characters that Windows
            refuses or control characters, or begins or ends with a space, or
            ends with a dot.
    """
    name = check_name(name, what)
    problem = ""
    if found := _NOT_IN_FOLDERS.search(name):
        problem = f"holds {found[0]!r}, which a folder name cannot"
    elif name in (".", ".."):
        problem = "would leave the folder that it belongs to"
    elif name != name.strip(" ") or name.endswith("."):
        problem = "begins or ends with a space, or ends with a dot"
    elif _RESERVED.fullmatch(name):
        problem = "is reserved on Windows"
    elif len(name.encode()) > MAX_FOLDER_BYTES:
        problem = f"has {len(name.encode())} bytes, more than {MAX_FOLDER_BYTES}"
    if problem:
        msg = (
            f"{what} {shorten(name)} {problem}. Use letters, digits, spaces, "
            f"'-', '_' and '.'."
        )
        raise InvalidNameError(msg)
    return name


def encode_file_name(name: str, suffix: str = "") -> str:
    """Return a file name that stands for ``name`` and no other name.

    Percent-encoding as in RFC 3986, section 2.1, of whatever some file system
    refuses. A name that would be too long keeps its beginning and ends in a
    digest of the whole, and then cannot be decoded.

    Args:
        name: A checked name.
        suffix: Appended, such as ``.csv``.
    """
    encoded = quote(name, safe=_SAFE)
    if encoded[0] in ". -" or _RESERVED.fullmatch(encoded):
        encoded = f"%{ord(encoded[0]):02X}{encoded[1:]}"
    if encoded[-1] in ". ":
        encoded = f"{encoded[:-1]}%{ord(encoded[-1]):02X}"
    if len(encoded) + len(suffix) > MAX_FOLDER_BYTES:
        import hashlib

        digest = hashlib.sha256(name.encode()).hexdigest()[:32]
        keep = MAX_FOLDER_BYTES - len(suffix) - len(digest) - 2
        # Not to cut an escape in two.
        head = re.sub(r"%.?$", "", encoded[:keep])
        encoded = f"{head}%~{digest}"
    return encoded + suffix


def decode_file_name(file_name: str, suffix: str = "") -> str:
    """Return the name behind a file name made by `encode_file_name`."""
    return unquote(file_name.removesuffix(suffix))


def shorten(value: object) -> str:
    """Return the ``repr`` of what was refused, short enough for an error."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # any object's __repr__
        text = object.__repr__(value)
    return text if len(text) <= 80 else f"{text[:60]}…{text[-15:]}"  # screen width
