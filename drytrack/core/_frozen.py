"""Dictionaries and lists that refuse every change.

Events share their payload between trackers, so a payload must not change.
Subclasses of the built-ins, unlike ``types.MappingProxyType``, still pickle,
copy, compare, and serialise with json and orjson (PyYAML's safe dumper knows
no subclasses of anything).
"""

from __future__ import annotations

from typing import NoReturn, TypeVar

K = TypeVar("K")
V = TypeVar("V")


def _refuse(self: object, *args: object, **kwargs: object) -> NoReturn:
    kind = "mapping" if isinstance(self, dict) else "list"
    msg = (
        f"This {kind} belongs to an event, which other trackers see too, and "
        f"cannot be changed. Change a copy: {'dict' if kind == 'mapping' else kind}(…)."
    )
    raise TypeError(msg)


class FrozenDict(dict[K, V]):
    """A ``dict`` whose content is fixed at creation."""

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type, tuple[dict[K, V]]]:
        """Pickle and copy through the constructor: items cannot be set."""
        return type(self), (dict(self),)


class OddFloats(FrozenDict[str, float]):
    """Metrics among which is NaN or infinity, which JSON must write in its own way."""

    __slots__ = ()


class FrozenList(list[V]):
    """A ``list`` whose content is fixed at creation."""

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = extend = insert = remove = pop = _refuse
    clear = sort = reverse = _refuse

    def __reduce__(self) -> tuple[type, tuple[list[V]]]:
        """Pickle and copy through the constructor: items cannot be set."""
        return type(self), (list(self),)


def freeze(value: object) -> object:
    """Return plain data with every dict and list in it made immutable."""
    if isinstance(value, dict):
        return FrozenDict({key: freeze(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return FrozenList([freeze(item) for item in value])
    return value
