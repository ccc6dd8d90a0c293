r"""Events as JSON, and back.

Plain data is written as it is. What JSON does not know is an object with one
key that begins with ``$``::

    NaN, ±inf       {"$float": "nan"}
    a long integer  {"$int": "0x7b…"}
    lone surrogates {"$text": "a\ud800"}
    a date and time {"$datetime": "2026-11-20T23:12:01"}
    a path          {"$path": "runs/a.pt"}
    bytes, media    {"$bytes": "<blob>"}, {"$media": ["png", "<blob>"]}
    an array        {"$array": ["<f4", [2, 3], "<blob>"]}
    a long table    {"$json": "<blob>"}
    a set           {"$set": [item, …]}
    other mappings  {"$dict": [[key, value], …]}

A blob is named by the SHA-256 of its content. Reading imports nothing, and
makes nothing but these types and the event classes that exist already.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from drytrack.core._constructor import type_name
from drytrack.core._frozen import FrozenList
from drytrack.core._media import MediaFile
from drytrack.core._plain import to_plain
from drytrack.core.exceptions import JournalError
from drytrack.core.log_events import Event, MetricEvent, StepMetricEvent, UnknownEvent

MAX_INLINE = 64 * 1024
"""Bytes of one field above which it goes to a blob."""

JSON_WEIGHT = 4
"""How much dearer the bytes of a long table are: each may become an object."""

PutBlob = Callable[[bytes], str]

_HOT = frozenset({MetricEvent, StepMetricEvent})
_HOT_NAMES = frozenset(cls.__name__ for cls in _HOT)

dumps = orjson.dumps
loads = orjson.loads


class Blobs:
    """Gets the blobs of one line, which may name each of them many times."""

    def __init__(self, get: Callable[[str], bytes], limit: int) -> None:
        """Start with all of the limit.

        Args:
            get: Returns the content of a blob.
            limit: Bytes to return in all.
        """
        self._get = get
        self._left = limit

    def __call__(self, name: str, weight: int = 1) -> bytes:
        """Return the content of a blob.

        Raises:
            JournalError: If the line has had its share.
        """
        data = self._get(name)
        self._left -= len(data) * weight
        if self._left < 0:
            raise JournalError("the blobs of the line are too long together.")
        return data


def find_type(name: str) -> type[Event] | None:
    """Return the event class of a name, if it has been defined."""
    found = None
    pending = [Event]
    for cls in pending:  # grows while it is walked
        # The last one wins: a slotted dataclass, or a cell run again, makes two.
        if type_name(cls) == name:
            found = cls
        pending.extend(cls.__subclasses__())
    return found


def encode_event(line: dict[str, Any], event: Event, put_blob: PutBlob) -> bytes:
    """Return the line of an event as one JSON object.

    Args:
        line: What is to be written, its fields not encoded yet.
        event: The event; callables in it are left out.
        put_blob: Keeps large content and returns its name.
    """
    if event.__class__ in _HOT:
        # Names, integers and floats: of these, NaN and infinity alone need a tag.
        metrics = event.metrics  # type: ignore[attr-defined]  # narrowed by class
        line["fields"]["metrics"] = {
            name: value if math.isfinite(value) else {"$float": repr(value)}
            for name, value in metrics.items()
        }
        if "context" not in line["fields"]:
            return dumps(line)
        line["fields"]["metrics"] = metrics  # the context may hold anything
    fields = line["fields"]
    if isinstance(event, UnknownEvent):  # read from a journal, and written again
        line["type"], fields = event.type_name, event.fields
    kept = {
        name: value
        for name, value in fields.items()
        if name != "push_updates" and not _is_callback(value)
    }
    try:
        line["fields"] = {n: encode(value, put_blob) for n, value in kept.items()}
        return dumps(line)
    except OSError:  # a blob that the disk does not take
        raise
    except Exception:  # noqa: BLE001  # nested too deep, or an odd library's array
        line["fields"] = {n: encode(to_plain(v), put_blob) for n, v in kept.items()}
        return dumps(line)


def _is_callback(value: object) -> bool:
    return callable(value) and not isinstance(value, (type, MediaFile))


def encode(value: Any, put_blob: PutBlob) -> Any:  # one line a type
    """Return a value as plain JSON data, tagged where needed."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        text = str.__str__(value)  # an enumeration's own would say its name
        if text.isascii() or _is_unicode(text):
            return text
        return {"$text": text.encode("unicode_escape").decode()}
    if isinstance(value, float):
        value = float(value)
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, int):
        value = int(value)
        return value if -(2**63) <= value < 2**64 else {"$int": hex(value)}
    if isinstance(value, (set, frozenset)):
        return {"$set": [encode(item, put_blob) for item in value]}
    if isinstance(value, (list, tuple)):
        if set(map(type, value)) == {float} and all(map(math.isfinite, value)):
            items: list[Any] = list(value)  # a histogram: spared forty calls
        else:
            items = [encode(item, put_blob) for item in value if not _is_callback(item)]
        if isinstance(value, FrozenList) and len(items) > 100:  # not worth a look
            data = dumps(items)
            if len(data) > MAX_INLINE:
                return {"$json": put_blob(data)}
        return items
    if isinstance(value, Mapping):
        if all(map(_is_plain_key, value)):
            return {key: encode(item, put_blob) for key, item in value.items()}
        pairs = [[encode(k, put_blob), encode(v, put_blob)] for k, v in value.items()]
        return {"$dict": pairs}
    if isinstance(value, datetime.datetime) and value == value:  # not NaT
        return {"$datetime": value.isoformat()}
    if isinstance(value, pathlib.PurePath):
        return {"$path": encode(value.as_posix(), put_blob)}
    if isinstance(value, (bytes, bytearray)):
        return {"$bytes": put_blob(bytes(value))}
    if isinstance(value, MediaFile):
        return {"$media": [value.format, put_blob(value.data)]}
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    numpy = sys.modules.get("numpy")
    if (
        numpy is not None
        and isinstance(value, numpy.ndarray)
        and not value.dtype.hasobject
        # Not so where fields have names, nor for the types of other packages.
        and numpy.dtype(value.dtype.str) == value.dtype
    ):
        data = numpy.ascontiguousarray(value).tobytes()
        return {"$array": [value.dtype.str, list(value.shape), put_blob(data)]}
    return encode(to_plain(value), put_blob)


def _is_plain_key(key: object) -> bool:
    if type(key) is not str or key.startswith("$"):
        return False
    return key.isascii() or _is_unicode(key)


def _is_unicode(text: str) -> bool:
    """Return whether a file can hold a text: not with lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def decode(value: Any, get_blob: Blobs) -> Any:
    """Return what `encode` was given.

    Raises:
        JournalError: If a tag is not one of ours, or its content is damaged.
    """
    if isinstance(value, list):
        return [decode(item, get_blob) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((tag, content),) = value.items()
        if tag.startswith("$"):
            try:
                return _DECODERS[tag](content, get_blob)
            except JournalError:
                raise
            except Exception as err:
                msg = f"{tag} {str(content)[:80]!r} cannot be read back: {err!r}."
                raise JournalError(msg) from err
    return {key: decode(item, get_blob) for key, item in value.items()}


def decode_fields(name: str, fields: dict[str, Any], get_blob: Blobs) -> dict[str, Any]:
    """Return the fields of an event type as `encode_event` was given them."""
    decoded = {}
    for field, value in fields.items():
        if (
            field == "metrics"
            and name in _HOT_NAMES
            and not isinstance(value.get("$dict"), list)
        ):
            # A metric may be called "$float": the mapping is no tag itself.
            decoded[field] = {k: decode(item, get_blob) for k, item in value.items()}
        else:
            decoded[field] = decode(value, get_blob)
    return decoded


def _hashable(value: Any) -> Any:
    """Return what was a tuple, and is a list in JSON, as a tuple again."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _decode_array(content: Any, get_blob: Blobs) -> Any:
    import numpy as np

    dtype, shape, blob = content
    array = np.frombuffer(get_blob(blob), dtype=np.dtype(dtype)).reshape(shape)
    array.flags.writeable = False
    return array


_DECODERS: dict[str, Callable[[Any, Blobs], Any]] = {
    "$float": lambda content, _: float(content),
    "$int": lambda content, _: int(content, 16),
    "$text": lambda content, _: content.encode("ascii").decode("unicode_escape"),
    "$datetime": lambda content, _: datetime.datetime.fromisoformat(content),
    "$path": lambda content, get: pathlib.Path(decode(content, get)),
    "$bytes": lambda content, get: get(content),
    "$media": lambda content, get: MediaFile(content[0], get(content[1])),
    "$array": _decode_array,
    "$json": lambda content, get: decode(loads(get(content, JSON_WEIGHT)), get),
    "$set": lambda content, get: frozenset(
        _hashable(decode(item, get)) for item in content
    ),
    "$dict": lambda content, get: {
        _hashable(decode(key, get)): decode(item, get) for key, item in content
    },
}


def build_event(name: str, cls: type[Event] | None, fields: dict[str, Any]) -> Event:
    """Return the unpublished event of a type name and decoded fields."""
    if cls is not None:
        try:
            event = cls.__new__(cls)
            event._fill(**fields)  # as `Event.unpublished` does
        except Exception:  # noqa: BLE001  # a user's class that has changed since
            return UnknownEvent.unpublished(name, fields)
        return event
    return UnknownEvent.unpublished(name, fields)


def blob_name(data: bytes) -> str:
    """Return the name of a blob."""
    return hashlib.sha256(data).hexdigest()
