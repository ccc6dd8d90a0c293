"""The constructor of event classes: check, copy, store, publish.

`dataclasses` generates an ``__init__`` that stores each field through
``object.__setattr__`` and then calls ``__post_init__``. On the hot path this
costs more than everything that the bus does, so the first instance of an
event class replaces it with one generated here, in the same way, that

1. passes each field through its door (`drytrack.core._door`),
2. stores it through the setter of its slot, and
3. looks up who listens, and calls them.

For ``MetricEvent`` the generated text is, in full, but for the two underscores
before all names that are not fields, which may be named ``type``::

    def __init__(self, model_name, source_name, epoch, metrics):
        if type(model_name) is not str or model_name not in known_names:
            model_name = door_model_name(model_name, 'model_name')
        if type(source_name) is not str or source_name not in known_names:
            source_name = door_source_name(source_name, 'source_name')
        if type(epoch) is not int or not -(2**63) <= epoch < 2**63:
            epoch = door_epoch(epoch, 'epoch')
        metrics = door_metrics(metrics, 'metrics')
        set_model_name(self, model_name)
        set_source_name(self, source_name)
        set_epoch(self, epoch)
        set_metrics(self, metrics)
        deliver = get_routes()[self.__class__]
        if deliver is not None:
            deliver(self)

A second function, ``_fill``, is the same without the last three lines: it
serves `Event.unpublished`. A third, ``_as_line``, returns what the
journal keeps of the event.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from drytrack.core import _door
from drytrack.core._current import get_routes
from drytrack.core._frozen import FrozenDict, FrozenList
from drytrack.core._names import known_names
from drytrack.core.exceptions import EventDefinitionError

if TYPE_CHECKING:
    from drytrack.core.log_events import Event

# The cheap test that spares most values the call of their door.
_SHORTCUTS: dict[_door.Door, str] = {
    _door.name: "(__type({f}) is not __str or {f} not in __known_names)",
    _door.index: f"(__type({{f}}) is not __int or not {-(2**63)} <= {{f}} < {2**63})",
    _door.text: "(__type({f}) is not __str or not {f}.isascii())",
    _door.snapshot: "__type({f}) not in __ATOMIC",
}
_MISSING = dataclasses.MISSING


def compile_constructor(cls: type[Event]) -> None:
    """Give an event class its ``__init__`` and its ``_fill``.

    Args:
        cls: A dataclass derived from `Event`.

    Raises:
        EventDefinitionError: If a field is a ``dataclasses.InitVar``.
    """
    fields = dataclasses.fields(cls)
    kinds = vars(cls).get("__dataclass_fields__", {}).values()
    # There is no public way to tell.
    if any(field._field_type.name == "_FIELD_INITVAR" for field in kinds):
        msg = (
            f"{cls.__name__} has an InitVar, which no handler could see. Make it a "
            f"field."
        )
        raise EventDefinitionError(msg)
    names: dict[str, Any] = {
        "__type": type,
        "__str": str,
        "__int": int,
        "__known_names": known_names,
        "__ATOMIC": _door.ATOMIC,
        "__get_routes": get_routes,
    }
    parameters = ["self"]
    keyword_only: list[str] = []
    checks: list[str] = []
    stores: list[str] = []
    for field in fields:
        f = field.name
        door = cls._doors.get(f, _door.snapshot)
        names[f"__door_{f}"] = door
        names[f"__set_{f}"] = _setter(cls, f)
        guard = ""
        if field.default is not _MISSING:
            names[f"__default_{f}"] = door(field.default, f)
            default, guard = f"__default_{f}", f"{f} is not __default_{f}"
        elif field.default_factory is not _MISSING:
            default = f"__default_{f}"
            made = field.default_factory in (dict, list) and door(
                field.default_factory(), f
            )
            if isinstance(made, (FrozenDict, FrozenList)):  # one serves all
                names[default] = made
                guard = f"{f} is not {default}"
            else:
                names[default] = _MISSING
                names[f"__make_{f}"] = field.default_factory
                checks.append(f"if {f} is {default}: {f} = __make_{f}()")
        else:
            default = ""
        if not field.init:
            if not default:
                continue
            checks.insert(0, f"{f} = {default}")
        else:
            parameter = f"{f}={default}" if default else f
            (keyword_only if field.kw_only else parameters).append(parameter)
        call = f"{f} = __door_{f}({f}, {f!r})"
        shortcut = _SHORTCUTS.get(door, "").format(f=f)
        if door is not _door.as_is:
            conditions = " and ".join(filter(None, (guard, shortcut)))
            checks.append(f"if {conditions}: {call}" if conditions else call)
        stores.append(f"__set_{f}(self, {f})")
    if keyword_only:
        parameters += ["*", *keyword_only]
    if hasattr(cls, "before_publish"):
        stores.append("self.before_publish()")
    publish = [
        "__deliver = __get_routes()[self.__class__]",
        "if __deliver is not None: __deliver(self)",
    ]
    fill = [*checks, *stores] or ["pass"]
    cls._fill = _compile(cls, "_fill", parameters, fill, names)  # type: ignore[method-assign]  # generated per class
    names["type_name"] = type_name(cls)
    cls._as_line = _compile(  # type: ignore[method-assign]  # generated per class
        cls,
        "_as_line",
        ["self", "seq", "attempt", "time_us"],
        _line(fields, names),
        names,
    )
    init = _compile(cls, "__init__", parameters, [*fill, *publish], names)
    cls.__init__ = init  # type: ignore[method-assign]  # generated per class


def _line(
    fields: tuple[dataclasses.Field[Any], ...], names: dict[str, Any]
) -> list[str]:
    """Return the body of ``_as_line``, which leaves out what is as by default."""
    always, others = [], []
    for field in fields:
        f = field.name
        if f"__default_{f}" not in names or names[f"__default_{f}"] is _MISSING:
            always.append(f"{f!r}: self.{f}")
        else:
            others.append(
                f"if self.{f} is not __default_{f}: line['fields'][{f!r}] = self.{f}"
            )
    head = (
        "'v': 1, 'type': type_name, 'attempt': attempt, 'seq': seq, 'time_us': time_us"
    )
    line = f"{{{head}, 'fields': {{{', '.join(always)}}}}}"
    if not others:
        return [f"return {line}"]
    return [f"line = {line}", *others, "return line"]


def type_name(cls: type[Event]) -> str:
    """Return the name that a journal knows an event class by."""
    if cls.__module__ == "drytrack.core.log_events":
        return cls.__name__
    return f"{cls.__module__}:{cls.__qualname__}"


def _setter(cls: type, name: str) -> Callable[[object, object], None]:
    """Return the fastest way to store a field of a frozen instance."""
    # What comes first counts: an overridden default hides the parent's slot.
    found = next((vars(k)[name] for k in cls.__mro__ if name in vars(k)), None)
    if isinstance(found, types.MemberDescriptorType):
        return found.__set__
    return lambda self, value: object.__setattr__(self, name, value)


def _compile(
    cls: type, name: str, parameters: list[str], body: list[str], names: dict[str, Any]
) -> Callable[..., Any]:
    source = f"def {name}({', '.join(parameters)}):\n " + "\n ".join(body)
    code = compile(source, f"<drytrack constructor of {cls.__qualname__}>", "exec")
    scope: dict[str, Any] = {}
    exec(code, names, scope)  # noqa: S102  # the text above, as dataclasses does
    function: Callable[..., Any] = scope[name]
    function.__qualname__ = f"{cls.__qualname__}.{name}"
    function.__module__ = cls.__module__
    return function
