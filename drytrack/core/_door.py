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
from typing import Final

from drytrack.core._frozen import FrozenDict, FrozenList
from drytrack.core._names import check_name, known_names
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
    for name, number in frozen.items():
        if type(number) is not float or name not in known_names:
            break
    else:
        return frozen
    return FrozenDict(
        {
            check_name(name, "metric name"): _to_float(name, number)
            for name, number in frozen.items()
        }
    )


def _to_float(name: str, value: object) -> float:
    if type(value) in _SCALARS or isinstance(value, _SCALARS):
        scalar = value
    elif isinstance(value, (str, bytes, complex)) or not hasattr(value, "item"):
        scalar = None
    else:
        # An array's item() of text is a str, of a datetime64 an int.
        kind = getattr(getattr(value, "dtype", None), "kind", "f")
        scalar = None
        if kind in "biufV":  # V: bfloat16 and float8 of ml_dtypes
            try:
                scalar = value.item()
            except Exception as err:  # noqa: BLE001  # any library's item()
                raise _metric_error(name, value) from err
    if not isinstance(scalar, _SCALARS):
        number = getattr(value, "__float__", None)
        # Decimal and Fraction are numbers without item(); text is none.
        if not (scalar is None and _is_real(value) and number is not None):
            raise _metric_error(name, value)
        scalar = value
    try:
        return float(scalar)  # type: ignore[arg-type]  # has __float__
    except OverflowError:
        msg = (
            f"metric {name!r} is too large for a 64-bit float. Pass its logarithm, "
            f"or float('inf')."
        )
        raise MetricValueError(msg) from None
    except (TypeError, ValueError) as err:
        raise _metric_error(name, value) from err


def _is_real(value: object) -> bool:
    import numbers
    from decimal import Decimal

    return isinstance(value, (numbers.Real, Decimal))


def _metric_error(name: str, value: object) -> MetricValueError:
    shape = getattr(value, "shape", None)
    if shape is not None:
        what = f"{type(value).__name__} of shape {tuple(shape)}"
        if (dtype := getattr(value, "dtype", None)) is not None:
            what += f" and type {dtype}"
    else:
        what = type(value).__name__
        if isinstance(value, (list, tuple, set, Mapping)):
            what += f" of length {len(value)}"
        elif isinstance(value, str):
            what += f" {value[:40]!r}"
    cure = {
        "NoneType": "Leave it out, or pass float('nan').",
        "str": "Pass float(…) of it, or publish a TextEvent.",
        "complex": "Pass its real part or its absolute value.",
    }.get(type(value).__name__, "Pass its mean, or one element.")
    return MetricValueError(f"metric {name!r} must be a number, got {what}. {cure}")


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
                f"{field} must be an integer, got {type(value).__name__} {value!r:.80}. "
                f"Pass int(…) of it."
            )
            raise EventValueError(msg) from None
        number = int(value)
    number = int(number)
    if number not in _INT64:
        msg = f"{field} {number:.3e} does not fit in 64 bits. Count from a nearer start."
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
    """Return any text; what is none becomes its ``str``."""
    return value if type(value) is str else str(value)


def plain(value: object, field: str) -> object:
    """Turn a configuration or metadata into frozen plain data; never raises."""
    from drytrack.core._frozen import freeze
    from drytrack.core._plain import to_plain

    return freeze(to_plain(value))


def plain_mapping(value: object, field: str) -> object:
    """Turn a mapping, or an object with attributes, into a frozen mapping.

    Raises:
        EventValueError: If ``value`` has no named parts.
    """
    result = plain(value, field)
    if not isinstance(result, dict):
        msg = (
            f"{field} must be a mapping, got {type(value).__name__}. "
            f"Pass a dictionary of names and values."
        )
        raise EventValueError(msg)
    return result


_NO_CONTEXT: Final[FrozenDict[str, object]] = FrozenDict()


def context(value: object, field: str) -> object:
    """Copy the labels of an event; most have none."""
    if not value:
        return _NO_CONTEXT
    if type(value) is dict and all(
        type(key) is str and type(item) in (str, int) for key, item in value.items()
    ):
        return FrozenDict(value)
    return plain_mapping(value, field)


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
    if isinstance(value, Sequence) and not isinstance(value, str):
        return FrozenList([_to_float(field, item) for item in value])
    return _to_float(field, value)


def numbers(value: object, field: str) -> FrozenList[float]:
    """Copy a one-dimensional sequence or array of finite numbers as floats."""
    if hasattr(value, "tolist"):
        value = value.detach().cpu() if hasattr(value, "detach") else value
        value = value.tolist()
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes)):
        msg = f"{field} must be a list of numbers, got {type(value).__name__}."
        raise EventValueError(f"{msg} Pass a list or a one-dimensional array.")
    result = FrozenList([_to_float(field, item) for item in value])
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
    return FrozenList([FrozenList([_cell(cell) for cell in row]) for row in value])


def _cell(value: object) -> object:
    if type(value) in ATOMIC:
        return value
    from drytrack.core._plain import to_plain

    return to_plain(value)


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
    if type(value) in ATOMIC or isinstance(value, _IMMUTABLE):
        return value
    if isinstance(value, tuple):
        items = [snapshot(item, field) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, (set, frozenset)):
        return frozenset(value)
    if isinstance(value, Mapping):
        return FrozenDict({key: snapshot(item, field) for key, item in value.items()})
    if isinstance(value, list):
        return FrozenList([snapshot(item, field) for item in value])
    if hasattr(value, "detach") and hasattr(value, "clone"):
        return value.detach().clone()
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        copied = value.copy()
        copied.flags.writeable = False
        return copied
    import copy

    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001  # locks, generators, a user's __deepcopy__
        return plain(value, field)
