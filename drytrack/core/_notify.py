"""The ``notify`` of trackers: handlers chosen by the type of the event.

`functools.singledispatchmethod` builds a closure at every access, once for
each level of ``super().notify``. `Notify` keeps its public behaviour, and adds
what the bus needs: handlers that can be looked up ahead of time, and
`extend`, which starts a class from the handlers of its parents.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from drytrack.core.exceptions import HandlerError
from drytrack.core.log_events import Event

if TYPE_CHECKING:
    from drytrack.core.track import Tracker

Handler = Callable[[Any, Any], None]
"""A function of a tracker and an event."""

_Bound = Callable[[Event], None]
H = TypeVar("H", bound=Callable[..., Any])

if TYPE_CHECKING:  # generic for type checkers alone
    _Base = functools.singledispatchmethod[None]
else:
    _Base = functools.singledispatchmethod


def ignore(tracker: Tracker, event: Event) -> None:
    """Handle an event that nobody registered for: do nothing."""


class Notify(_Base):
    """A method that calls the handler registered for its argument's type."""

    def __init__(self, default: Handler = ignore) -> None:
        """Start with one handler, for whatever has no other.

        Args:
            default: In the classic form, the decorated ``notify`` itself.
        """
        super().__init__(default)
        self.default = default
        self.handlers: dict[type[Event], Handler] = {}

    @classmethod
    def from_classic(cls, method: functools.singledispatchmethod[Any]) -> Notify:
        """Take over the handlers of a `functools.singledispatchmethod`."""
        notify = cls(method.func)
        for event_type, handler in method.dispatcher.registry.items():
            if event_type is not object:
                notify._add(event_type, handler)
        return notify

    def extend(self, *others: Notify) -> Notify:
        """Return a copy to which a class adds its own handlers.

        Args:
            *others: The ``notify`` of further parents. Where several parents
                handle a type, the first one named wins, as in Python's method
                resolution.
        """
        parents = (self, *others)
        defaults = [p.default for p in parents if p.default is not ignore]
        copy = Notify(defaults[0] if defaults else ignore)
        for parent in reversed(parents):
            for event_type, handler in parent.handlers.items():
                copy._add(event_type, handler)
        return copy

    @overload  # type: ignore[override]  # narrower: event classes alone
    def register(self, cls: type[Event], method: None = None) -> Callable[[H], H]: ...

    @overload
    def register(self, cls: type[Event], method: H) -> H: ...

    @overload
    def register(self, cls: H, method: None = None) -> H: ...

    def register(self, cls: Any, method: Any = None) -> Any:
        """Register a handler; used as a decorator, with or without a class.

        Args:
            cls: The event class, or the decorated handler, whose annotation
                then names the class.
            method: The handler, where it is not decorated.

        Raises:
            HandlerError: If the class is no event class, or cannot be told
                from the annotation.
        """
        if isinstance(cls, (type, types.UnionType)):
            if method is None:
                return functools.partial(self._add_to, cls)
            return self._add_to(cls, method)
        self._add(_annotated_type(cls), cls)
        return cls

    def _add_to(self, event_type: Any, handler: H) -> H:
        self._add(event_type, handler)
        return handler

    def _add(self, event_type: Any, handler: Handler) -> None:
        if typing.get_origin(event_type) in (types.UnionType, typing.Union):
            for member in typing.get_args(event_type):
                self._add(member, handler)
            return
        if not (isinstance(event_type, type) and issubclass(event_type, Event)):
            msg = (
                f"{getattr(handler, '__qualname__', handler)} is registered for "
                f"{event_type!r}, which is no event class. Annotate its argument "
                f"with a subclass of log_events.Event."
            )
            raise HandlerError(msg)
        super().register(event_type, handler)
        self.handlers[event_type] = handler

    def find(self, tracker_type: type, event_type: type[Event]) -> Handler:
        """Return the function that handles an event type for a tracker class.

        A method that overrides a handler by name wins over the registered one.
        """
        handler: Handler = self.dispatcher.dispatch(event_type)
        name = getattr(handler, "__name__", "_")
        if handler is self.default or name == "_":
            return handler
        override = getattr(tracker_type, name, handler)
        if override is handler or not callable(override):
            return handler
        return handler if _is_registered(tracker_type, override) else override

    def bind(self, tracker: Tracker, event_type: type[Event]) -> Callable[[Any], None]:
        """Return the method that handles an event type for a tracker."""
        handler = self.find(type(tracker), event_type)
        patched = vars(tracker).get(getattr(handler, "__name__", "_"))
        return patched if callable(patched) else types.MethodType(handler, tracker)

    def __call__(self, tracker: Tracker, event: Event | None = None) -> None:
        """Handle an event, as the unbound ``Class.notify(tracker, event)``.

        An autospecced mock reads this signature, and is called with the event alone.
        """
        if not isinstance(event, Event):
            msg = f"notify takes an event, got {type(event).__name__}. See log_events."
            raise HandlerError(msg)
        with tracker._life_cycle(event):
            self.bind(tracker, type(event))(event)

    @overload  # type: ignore[override]  # the class gets this object itself
    def __get__(self, obj: None, cls: type | None = None) -> Notify: ...

    @overload
    def __get__(self, obj: Tracker, cls: type | None = None) -> _Bound: ...

    def __get__(self, obj: Any, cls: type | None = None) -> Any:
        """Return the bound method, or this object for the class itself."""
        if obj is None:
            return self
        return functools.partial(self, obj)


def _is_registered(tracker_type: type, method: object) -> bool:
    """Say whether a method is a handler of its own in some class of the line.

    It then calls ``super().notify(event)`` to reach its parent's, and must not be
    reached by that itself.
    """
    found = (vars(klass).get("notify") for klass in tracker_type.__mro__)
    return any(
        method in notify.handlers.values()
        for notify in found
        if isinstance(notify, Notify)
    )


def _annotated_type(handler: Any) -> type:
    name = getattr(handler, "__qualname__", repr(handler))
    target = getattr(handler, "func", getattr(handler, "__func__", handler))
    try:
        parameters = list(inspect.signature(target, eval_str=True).parameters.values())
    except (NameError, TypeError, ValueError) as err:
        msg = (
            f"The event class in the annotation of {name} cannot be found: {err}. "
            f"Import it at run time (not under TYPE_CHECKING), or name it: "
            f"@notify.register(EventClass)."
        )
        raise HandlerError(msg) from err
    annotation = parameters[1].annotation if len(parameters) > 1 else None
    if annotation in (None, inspect.Parameter.empty):
        msg = (
            f"{name} does not say which event it handles. Annotate its second "
            f"parameter, or name the class: @notify.register(EventClass)."
        )
        raise HandlerError(msg)
    return annotation  # type: ignore[no-any-return]  # checked by _add
