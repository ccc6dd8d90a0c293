"""Trackers, and the dispatcher that subscribes them to an experiment."""

from __future__ import annotations

import contextlib
import copy
import functools
import types
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, Self, TypeVar

from drytrack.core import _current
from drytrack.core._notify import Notify, ignore
from drytrack.core.exceptions import (
    AccessOutsideScopeError,
    HandlerError,
    TrackerNameError,
    TrackerNotFoundError,
)
from drytrack.core.log_events import Event, StartExperimentEvent, StopExperimentEvent

if TYPE_CHECKING:
    from drytrack.core._bus import Bus

__all__ = ["EventDispatcher", "Tracker"]

T = TypeVar("T")


class _Scope:
    """What a tracker has of the run that it watches."""

    def __init__(
        self, start: StartExperimentEvent, state: dict[str, Any], driver: object
    ) -> None:
        self.start = start
        self.state = state
        self.driver = driver
        self.stack = ExitStack()


class Tracker:
    """Handles the events of a run; subclass it and register handlers.

    The short form starts from the parent's handlers::

        class Printer(Tracker):
            notify = Tracker.notify.extend()

            @notify.register
            def _print(self, event: log_events.MetricEvent) -> None:
                print(event.metrics)

    The classic form decorates a ``notify`` of its own with
    `functools.singledispatchmethod` and calls ``super().notify(event)``.

    What a handler needs during a run is made in the handler of the start
    event: one instance can watch several runs, one after the other, and where
    runs overlap, each gets a shallow copy of it.

    Attributes:
        name: What the tracker is called in a run, by default the class name.
        background: Whether a worker thread calls the handlers.
        every_rank: Whether the tracker watches on all ranks, not the main alone.
    """

    name: str = "Tracker"
    background: bool = False
    every_rank: bool = False
    notify = Notify()

    _scope: _Scope | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Name the class, and take over a ``notify`` in the classic form.

        Raises:
            HandlerError: If a handler has the name of a method of `Tracker`.
        """
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = cls.__name__
        own = vars(cls).get("notify")
        if isinstance(own, functools.singledispatchmethod) and not isinstance(
            own, Notify
        ):
            cls.notify = Notify.from_classic(own)
        _check_handler_names(cls)

    @classmethod
    def get_current(cls, name: str | None = None) -> Self:
        """Return the instance that watches the current run.

        Args:
            name: Its name in the run; needed where several of the class do.

        Raises:
            AccessOutsideScopeError: If there is no current run.
            TrackerNotFoundError: If no such tracker watches it.
            TrackerNameError: If several do and no name was given.
        """
        run = _current.current_run()
        found = {
            guest: tracker
            for guest, tracker in _unwrapped(run.bus.trackers()).items()
            if isinstance(tracker, cls) and name in (None, guest)
        }
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            names = ", ".join(map(repr, found))
            msg = (
                f"{len(found)} trackers of class {cls.__name__} watch the run: "
                f"{names}. Say which: "
                f"{cls.__name__}.get_current({next(iter(found))!r})."
            )
            raise TrackerNameError(msg)
        what = f"named {name!r} " if name else ""
        msg = (
            f"No tracker {what}of class {cls.__name__} watches the current run. "
            f"Subscribe one: experiment.trackers.subscribe({cls.__name__}(…))."
        )
        raise TrackerNotFoundError(msg)

    @property
    def innermost(self) -> Tracker:
        """The tracker itself; for a wrapper, the one that it wraps."""
        return self

    @property
    def start_event(self) -> StartExperimentEvent:
        """The start event of the run that is being watched.

        Raises:
            AccessOutsideScopeError: If the tracker watches none.
        """
        return self._require_scope().start

    @property
    def state(self) -> dict[str, Any]:
        """Plain data that outlives the process, kept in the run's record.

        A hosted service's run id goes here, so that a resumed run goes on there.
        """
        return self._require_scope().state

    def enter_context(self, context: AbstractContextManager[T]) -> T:
        """Enter a context that is left when the run ends, whatever happens."""
        return self._require_scope().stack.enter_context(context)

    def last_seq(self) -> int | None:
        """Return the newest `Stamp.seq` that the tracker has kept of this run.

        Asked when a run is resumed, when the handler of its start event has
        returned: the tracker then gets what follows. None where it does not know:
        one in the background then gets what follows the cursor in the run's
        record, another one what it missed where it was suspended at the end.
        """
        return None

    def flush(self) -> None:
        """Hand over what is buffered; called after a drained batch, and at stop."""

    def clean_up(self) -> None:
        """Release what the tracker holds; called once, after the stop event."""

    def _require_scope(self) -> _Scope:
        if self._scope is None:
            msg = (
                f"Tracker {self.name!r} watches no run. Subscribe it, or pass it "
                f"the start event: tracker.notify(StartExperimentEvent.unpublished(…))."
            )
            raise AccessOutsideScopeError(msg)
        return self._scope

    def _find_handler(self, event_type: type[Event]) -> Callable[[Any], None] | None:
        """Return what to call for events of a type; None for nothing."""
        notify = vars(type(self)).get("notify", type(self).notify)
        if "notify" in vars(self) or not isinstance(notify, Notify):
            return lambda event: self.notify(event)
        if notify.find(type(self), event_type) is ignore:
            return None
        if notify.default is not ignore:  # the classic form
            return lambda event: self.notify(event)
        return notify.bind(self, event_type)

    def _copy_for_run(self) -> Self:
        """Take this tracker for a run; return a copy where another run has it."""
        # setdefault is one step: of two runs that start at once, one comes first.
        claim = object()
        if vars(self).setdefault("_claim", claim) is claim:
            return self
        own = copy.copy(self)
        own._scope = None
        return own

    def _enter_run(
        self, start: StartExperimentEvent, state: dict[str, Any], driver: object
    ) -> None:
        """Enter a run."""
        self._leave_run()
        vars(self)["_claim"] = start
        self._scope = _Scope(start, state, driver)

    def _leave_run(self) -> None:
        """Leave a run and whatever contexts were entered for it."""
        scope, self._scope = self._scope, None
        vars(self).pop("_claim", None)
        if scope is not None:
            scope.stack.close()

    def _life_cycle(self, event: Event) -> AbstractContextManager[None]:
        """Do what the bus does at start and stop, where nobody else does."""
        if isinstance(event, StartExperimentEvent):
            if self._scope is None or self._scope.start is not event:
                self._enter_run(event, {}, driver=None)
        elif isinstance(event, StopExperimentEvent):
            scope = self._scope
            if scope is not None and scope.driver is None:
                scope.driver = self  # calls of super().notify come by here again
                return self._by_hand()
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def _by_hand(self) -> Any:
        with contextlib.ExitStack() as stack:  # each, whatever the others raise
            stack.callback(self._leave_run)
            stack.callback(self.clean_up)
            stack.callback(self.flush)
            yield


class EventDispatcher:
    """The trackers of an experiment, and the way to their handlers."""

    def __init__(self) -> None:
        """Start without trackers."""
        self._trackers: dict[str, Tracker] = {}
        self._buses: list[Bus] = []

    @property
    def named_trackers(self) -> Mapping[str, Tracker]:
        """The subscribed trackers by name; a view that cannot be changed."""
        return types.MappingProxyType(self._trackers)

    def subscribe(self, *trackers: Tracker, **named: Tracker) -> None:
        """Add trackers, to the runs that are active as well.

        Args:
            *trackers: Trackers, each under its own ``name``.
            **named: Trackers under the names given.

        Raises:
            TrackerNameError: If a name is taken; then none is added.
            TypeError: If one is no tracker; then none is added.
        """
        added: dict[str, Tracker] = {}
        for tracker in (*trackers, *named.values()):
            _check_tracker(tracker)
        pairs = [(str(tracker.name), tracker) for tracker in trackers]
        for name, tracker in [*pairs, *named.items()]:
            if name in self._trackers or name in added:
                cls = type(tracker).__name__
                msg = (
                    f"A tracker named {name!r} is subscribed already. Give the second "
                    f"one a name: trackers.subscribe(second_{name}={cls}(…))."
                )
                raise TrackerNameError(msg)
            added[name] = tracker
        self._trackers.update(added)
        for bus in list(self._buses):
            for name, tracker in added.items():
                bus.add(name, tracker)

    def remove(self, name: str) -> None:
        """Remove a tracker; one that watches a run is cleaned up.

        Args:
            name: Its name, or its class name where that says which.

        Raises:
            TrackerNotFoundError: If there is none of that name.
        """
        name = self._find(name)
        del self._trackers[name]
        for bus in list(self._buses):
            bus.remove(name)

    def remove_all(self) -> None:
        """Remove every tracker."""
        for name in list(self._trackers):
            self.remove(name)

    def resume(self, name: str) -> None:
        """Let a suspended tracker go on at once, with what it had missed.

        Args:
            name: Its name.

        Raises:
            TrackerNotFoundError: If there is none of that name.
        """
        name = self._find(name)
        for bus in list(self._buses):
            bus.resume(name)

    def publish(self, event: Event) -> None:
        """Publish an event that was built with ``Event.unpublished``.

        Args:
            event: The event; it goes to the current run where that belongs to
                this experiment, else to the experiment's only active run.

        Raises:
            AccessOutsideScopeError: If there is no such run.
        """
        buses = self._buses
        run = _current.context_run()
        own = [bus for bus in buses if bus.run is run] or list(buses)
        if len(own) != 1:
            msg = (
                f"The experiment has {len(own)} active runs, so an event cannot be "
                f"published to it. Do it inside `with experiment.create_run():`."
            )
            raise AccessOutsideScopeError(msg)
        own[0].publish(event)

    def _find(self, name: str) -> str:
        if name in self._trackers:
            return name
        by_class = [
            known
            for known, tracker in _unwrapped(self._trackers).items()
            if type(tracker).__name__ == name
        ]
        if len(by_class) == 1:
            return by_class[0]
        known = ", ".join(map(repr, self._trackers)) or "none"
        msg = f"No tracker is named {name!r}. Subscribed: {known}."
        raise TrackerNotFoundError(msg)


def _unwrapped(trackers: Mapping[str, Tracker]) -> dict[str, Tracker]:
    return {
        # Not of a mock, whose attributes are mocks.
        name: tracker.innermost if issubclass(type(tracker), Tracker) else tracker
        for name, tracker in trackers.items()
    }


def _check_handler_names(cls: type[Tracker]) -> None:
    """Refuse a handler in the place of what the bus calls for other ends."""
    notify = vars(cls).get("notify")
    handlers = notify.handlers.values() if isinstance(notify, Notify) else ()
    hidden = vars(cls).keys() & vars(Tracker).keys()
    for name in sorted(hidden):
        if any(vars(cls)[name] is handler for handler in handlers):
            msg = (
                f"{cls.__name__}.{name} handles an event and hides Tracker.{name}, "
                f"which the bus calls for another end. Give the handler another name."
            )
            raise HandlerError(msg)


def _check_tracker(tracker: object) -> None:
    if not isinstance(tracker, Tracker):
        msg = (
            f"subscribe takes trackers, got {type(tracker).__name__}. Pass an "
            f"instance of a subclass of Tracker."
        )
        raise TypeError(msg)
