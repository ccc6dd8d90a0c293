"""The constructor of event classes: check, copy, store, publish.

`dataclasses` generates an ``__init__`` that stores each field through
``object.__setattr__`` and then calls ``__post_init__``. On the hot path this
costs more than everything that the bus does, so the first instance of an
event class replaces it with one generated here, in the same way, that

1. passes each field through its door (`drytrack.core._door`),
2. stores it through the setter of its slot, and
3. looks up who listens, and calls them.

For ``MetricEvent`` the generated text is, in full::

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
serves `Event.unpublished`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from drytrack.core import _door
from drytrack.core._current import get_routes
from drytrack.core._names import known_names
from drytrack.core.exceptions import EventDefinitionError

if TYPE_CHECKING:
    from drytrack.core.log_events import Event

# The cheap test that spares most values the call of their door.
_SHORTCUTS: dict[_door.Door, str] = {
    _door.name: "type({f}) is not str or {f} not in known_names",
    _door.index: f"type({{f}}) is not int or not {-(2**63)} <= {{f}} < {2**63}",
    _door.text: "type({f}) is not str",
    _door.snapshot: "type({f}) not in ATOMIC",
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
    if any(field._field_type.name == "_FIELD_INITVAR" for field in kinds):  # noqa: SLF001  # no public way
        msg = f"{cls.__name__} has an InitVar, which no handler could see. Make it a field."
        raise EventDefinitionError(msg)
    names: dict[str, Any] = {
        "get_routes": get_routes,
        "known_names": known_names,
        "ATOMIC": _door.ATOMIC,
        "MISSING": _MISSING,
    }
    parameters = ["self"]
    keyword_only = []
    checks, stores = [], []
    for field in fields:
        f = field.name
        door = cls._doors.get(f, _door.snapshot)
        names[f"door_{f}"] = door
        names[f"set_{f}"] = _setter(cls, f)
        if field.default is not _MISSING:
            names[f"default_{f}"] = field.default
            default = f"default_{f}"
        elif field.default_factory is not _MISSING:
            names[f"make_{f}"] = field.default_factory
            default = "MISSING"
            checks.append(f"if {f} is MISSING: {f} = make_{f}()")
        else:
            default = ""
        if not field.init:
            if not default:
                continue
            checks.insert(0, f"{f} = {default}")
        else:
            parameter = f"{f}={default}" if default else f
            (keyword_only if field.kw_only else parameters).append(parameter)
        call = f"{f} = door_{f}({f}, {f!r})"
        if shortcut := _SHORTCUTS.get(door):
            checks.append(f"if {shortcut.format(f=f)}: {call}")
        elif door is not _door.as_is:
            checks.append(call)
        stores.append(f"set_{f}(self, {f})")
    if keyword_only:
        parameters += ["*", *keyword_only]
    if hasattr(cls, "before_publish"):
        stores.append("self.before_publish()")
    publish = [
        "deliver = get_routes()[self.__class__]",
        "if deliver is not None: deliver(self)",
    ]
    fill = [*checks, *stores] or ["pass"]
    cls._fill = _compile(cls, "_fill", parameters, fill, names)  # type: ignore[method-assign]  # generated per class
    init = _compile(cls, "__init__", parameters, [*fill, *publish], names)
    cls.__init__ = init  # type: ignore[method-assign]  # generated per class


def _setter(cls: type, name: str) -> Callable[[object, object], None]:
    """Return the fastest way to store a field of a frozen instance."""
    for klass in cls.__mro__:
        slot = vars(klass).get(name)
        if hasattr(slot, "__set__"):
            return slot.__set__  # type: ignore[no-any-return]  # a member descriptor
    return lambda self, value: object.__setattr__(self, name, value)


def _compile(
    cls: type, name: str, parameters: list[str], body: list[str], names: dict[str, Any]
) -> Callable[..., None]:
    source = f"def {name}({', '.join(parameters)}):\n " + "\n ".join(body)
    code = compile(source, f"<drytrack constructor of {cls.__qualname__}>", "exec")
    scope: dict[str, Any] = {}
    exec(code, names, scope)  # noqa: S102  # the text above, as dataclasses does
    function: Callable[..., None] = scope[name]
    function.__qualname__ = f"{cls.__qualname__}.{name}"
    function.__module__ = cls.__module__
    return function
