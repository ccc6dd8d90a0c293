"""What event fields pass through before anyone sees them.

A door takes a value and the name of its field, and returns what the event
keeps: a snapshot that neither the caller nor a tracker can change, or an
`EventValueError` that leaves no trace.
"""

from __future__ import annotations

import datetime
import enum
import math
import operator
import pathlib
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from drytrack.core._frozen import FrozenDict, FrozenList, OddFloats
from drytrack.core._names import check_name, known_names, shorten
from drytrack.core.exceptions import EventValueError, MetricValueError

Door = Callable[[object, str], object]
"""Checks and copies the value of the named field."""

ATOMIC: Final = frozenset(
    {str, int, float, bool, type(None), bytes, complex, datetime.datetime}
)
"""Types whose values cannot change and pass every door as they are."""

_IMMUTABLE: Final = (
    pathlib.PurePath,
    enum.Enum,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    re.Pattern,
    type,
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
)
_INT64: Final = range(-(2**63), 2**63)
_SCALARS: Final = (int, float)


def metrics(value: object, field: str) -> FrozenDict[str, float]:
    """Copy metrics, every value as a Python float.

    Raises:
        MetricValueError: If one is not a single real number.
        EventValueError: If ``value`` is no mapping.
        InvalidNameError: If a metric's name is not fit to be kept.
    """
    try:
        frozen: FrozenDict[str, float] = FrozenDict(value)  # type: ignore[call-overload]  # checked by failing
    except (TypeError, ValueError):
        msg = (
            f"{field} must map names to numbers, got {type(value).__name__}. "
            f"Pass a dictionary such as {{'loss': 0.1}}."
        )
        raise EventValueError(msg) from None
    for number in frozen.values():
        # The difference is 0.0 but for NaN and infinity, where it is NaN: true.
        if number.__class__ is not float or number - number:
            break
    else:
        if known_names.issuperset(frozen):
            return frozen
    floats = {
        check_name(name, "metric name"): _to_float(number, f"metric {name!r}")
        for name, number in frozen.items()
    }
    kind = FrozenDict if all(map(math.isfinite, floats.values())) else OddFloats
    return kind(floats)


def _to_float(value: object, what: str) -> float:
    """Return a number of any library as a float."""
    if type(value) is float:
        return value
    scalar = value
    if not isinstance(value, _SCALARS):
        # An array's item() of text is a str, of a datetime64 an int.
        kind = getattr(getattr(value, "dtype", None), "kind", "f")
        if kind not in "biufOV":  # O: a Fraction; V: bfloat16 of ml_dtypes
            raise _number_error(value, what)
        if hasattr(value, "item"):
            scalar = _read_item(value, what)
        if not isinstance(scalar, _SCALARS) and not _is_real(scalar):
            raise _number_error(value, what)
    try:
        number = float(scalar)  # type: ignore[arg-type]  # has __float__
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError) as err:
        raise _number_error(value, what) from err
    if math.isinf(number) and scalar != number:
        size = type(scalar).__name__
        if isinstance(scalar, int):
            size += f" of {scalar.bit_length()} bits"
        msg = (
            f"{what} must fit in a 64-bit float, got {size}. Pass its logarithm, or "
            f"float('inf')."
        )
        raise MetricValueError(msg)
    return number


def _read_item(value: Any, what: str) -> object:
    try:
        # The item() of what is masked is 0.0, and it is no value at all.
        if type(value).__module__.startswith("numpy.ma") and value.mask.all():
            return math.nan
        return value.item()
    except Exception as err:  # any library's item()
        raise _number_error(value, what) from err


def _is_real(value: object) -> bool:
    import numbers
    from decimal import Decimal

    # Decimal, Fraction and numpy.longdouble; text is none.
    return isinstance(value, (numbers.Real, Decimal))


def _number_error(value: object, what: str) -> MetricValueError:
    found = type(value).__name__
    shape = getattr(value, "shape", None)
    if shape is not None:
        found += f" of shape {shape if isinstance(shape, str) else tuple(shape)}"
        if (dtype := getattr(value, "dtype", None)) is not None:
            found += f" and type {dtype}"
    elif isinstance(value, (list, tuple, set, Mapping)):
        found += f" of length {len(value)}"
    elif isinstance(value, (str, bytes)):
        found += f" {shorten(value)}"
    cure = {
        "NoneType": "Leave it out, or pass float('nan').",
        "str": "Pass float(…) of it, or publish a TextEvent.",
        "complex": "Pass its real part or its absolute value.",
    }.get(type(value).__name__, "Pass its mean, or one element.")
    return MetricValueError(f"{what} must be a number, got {found}. {cure}")


def index(value: object, field: str) -> int:
    """Return an epoch or a step as an int of 64 bits.

    Raises:
        EventValueError: If it is no integer, or out of range.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # checked by failing
    except (TypeError, ValueError, RuntimeError):
        if not (isinstance(value, float) and value.is_integer()):
            msg = (
                f"{field} must be an integer, got {type(value).__name__} "
                f"{shorten(value)}. Pass int(…) of it."
            )
            raise EventValueError(msg) from None
        number = int(value)
    number = int(number)
    if number not in _INT64:
        msg = (
            f"{field} has {number.bit_length()} bits, more than the 63 of an integer "
            f"in a file. Count from a nearer start."
        )
        raise EventValueError(msg)
    return number


def optional_index(value: object, field: str) -> int | None:
    """Return an epoch or a step, or None."""
    return None if value is None else index(value, field)


def name(value: object, field: str) -> str:
    """Return a model, source or metric name that is fit to be kept."""
    return check_name(value, field)


def optional_name(value: object, field: str) -> str:
    """Return a name, or the empty text."""
    return "" if value == "" else check_name(value, field)


def text(value: object, field: str) -> str:
    """Return any text; what is none becomes its ``str``.

    Lone surrogates, which no file could hold, are written as escapes.
    """
    found = value if type(value) is str else str(value)
    return found.encode("utf-8", "backslashreplace").decode()


def optional_text(value: object, field: str) -> str | None:
    """Return any text, or None."""
    return None if value is None else text(value, field)


def plain(value: object, field: str) -> object:
    """Turn a configuration or metadata into frozen plain data; never raises."""
    from drytrack.core._frozen import freeze
    from drytrack.core._plain import to_plain

    return freeze(to_plain(value))


def plain_mapping(value: object, field: str) -> FrozenDict[str, object]:
    """Turn a mapping, or an object with attributes, into a frozen mapping.

    Raises:
        EventValueError: If ``value`` has no named parts.
    """
    result = plain(value, field)
    if not isinstance(result, FrozenDict):
        msg = (
            f"{field} must be a mapping, got {type(value).__name__}. "
            f"Pass a dictionary of names and values."
        )
        raise EventValueError(msg)
    return result


_NO_CONTEXT: Final[FrozenDict[str, object]] = FrozenDict()


def context(value: object, field: str) -> object:
    """Copy the labels of an event; most have none."""
    if value is None or value is _NO_CONTEXT:
        return _NO_CONTEXT
    if type(value) is dict and all(
        type(key) is str
        and key in known_names
        and ((type(item) is str and item.isascii()) or type(item) is bool)
        for key, item in value.items()
    ):
        return FrozenDict(value) if value else _NO_CONTEXT
    result = plain_mapping(value, field)
    return FrozenDict(
        {check_name(key, f"{field} key"): item for key, item in result.items()}
    )


def names(value: object, field: str) -> FrozenList[str]:
    """Copy a sequence of names, such as tags; a single one counts as one."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, Iterable):
        msg = f"{field} must be a list of names, got {type(value).__name__}."
        raise EventValueError(f"{msg} Pass a list such as ['baseline'].")
    return FrozenList([check_name(item, field) for item in value])


def number_or_numbers(value: object, field: str) -> object:
    """Return a learning rate: None, a float, or one for each parameter group."""
    if value is None or type(value) is float:
        return value
    if isinstance(value, Mapping):
        return metrics(value, field)
    is_sequence = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    if is_sequence or getattr(value, "ndim", 0) == 1:
        return FrozenList([_to_float(item, field) for item in value])  # type: ignore[attr-defined]  # a sequence
    return _to_float(value, field)


def numbers(value: object, field: str) -> FrozenList[float]:
    """Copy a one-dimensional sequence or array of finite numbers as floats."""
    if hasattr(value, "tolist"):
        value = value.detach().cpu() if hasattr(value, "detach") else value
        value = value.tolist()
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes)):
        msg = f"{field} must be a list of numbers, got {type(value).__name__}."
        raise EventValueError(f"{msg} Pass a list or a one-dimensional array.")
    floats = list(value)
    if set(map(type, floats)) != {float}:
        floats = [_to_float(item, f"each of {field}") for item in floats]
    result = FrozenList(floats)
    if not all(map(math.isfinite, result)):
        msg = f"{field} holds NaN or infinity. Leave such values out and count them."
        raise EventValueError(msg)
    return result


def location(value: object, field: str) -> object:
    """Return a path, or the address of a hosted file, as it was given."""
    if isinstance(value, (str, pathlib.PurePath)):
        return value
    if hasattr(value, "__fspath__"):
        return pathlib.Path(value)
    msg = f"{field} must be a path, got {type(value).__name__}. Pass a str or a Path."
    raise EventValueError(msg)


def path(value: object, field: str) -> pathlib.Path:
    """Return a path as `pathlib.Path`."""
    found = location(value, field)
    if isinstance(found, str) and "\0" in found:
        msg = f"{field} {found!r} holds a NUL character. Remove it."
        raise EventValueError(msg)
    return pathlib.Path(found)  # type: ignore[arg-type]  # str or PurePath


def cells(value: object, field: str) -> FrozenList[object]:
    """Copy the rows of a table: numbers and text stay, the rest becomes plain."""
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes, Mapping)):
        msg = f"{field} must be a list of rows, got {type(value).__name__}."
        raise EventValueError(f"{msg} Pass a list of lists.")
    return FrozenList([_row(row, field) for row in value])


def _row(value: object, field: str) -> FrozenList[object]:
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes, Mapping)):
        msg = (
            f"{field} must be a list of rows, got one of type {type(value).__name__}. "
            f"Pass a list of lists; of a data frame, its values."
        )
        raise EventValueError(msg)
    return FrozenList([_cell(cell) for cell in value])


def _cell(value: object) -> object:
    if type(value) in ATOMIC:
        return value
    return plain(value, "cell")


def image(value: object, field: str) -> object:
    """Copy an image; see `drytrack.core._media.image`."""
    from drytrack.core import _media

    return _media.image(value, field)


def figure(value: object, field: str) -> object:
    """Render a figure; see `drytrack.core._media.figure`."""
    from drytrack.core import _media

    return _media.figure(value, field)


def as_is(value: object, field: str) -> object:
    """Let a value pass that trackers and publisher share on purpose."""
    return value


def snapshot(value: object, field: str) -> object:
    """Copy whatever a user's own event carries, keeping its type where possible.

    Containers are frozen, arrays and tensors copied, immutable objects and
    functions kept; other objects are deep-copied, or turned into plain data
    where they cannot be.
    """
    try:
        return _copy(value, field)
    except RecursionError:  # a container in itself
        return plain(value, field)


def _copy(value: Any, field: str) -> object:
    if type(value) in ATOMIC or isinstance(value, _IMMUTABLE):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, tuple):
        items: list[Any] = [_copy(item, field) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, (set, frozenset)):
        return frozenset(value)
    if isinstance(value, Mapping):
        return FrozenDict({key: _copy(item, field) for key, item in value.items()})
    if isinstance(value, list):
        return FrozenList([_copy(item, field) for item in value])
    if hasattr(value, "detach") and hasattr(value, "clone"):
        return value.detach().clone()
    import copy

    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        copied = copy.deepcopy(value) if value.dtype.hasobject else value.copy()
        copied.flags.writeable = False
        return copied
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001  # locks, generators, a user's __deepcopy__
        return plain(value, field)
