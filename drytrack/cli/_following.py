"""``drytrack tail``."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from drytrack._report_facts import LIVE
from drytrack._summaries import to_json
from drytrack.cli import _output
from drytrack.cli._options import RUN, Settings, common, find_folder
from drytrack.core import log_events
from drytrack.core._record import read_record
from drytrack.core.exceptions import RecordError
from drytrack.core.journal import JournalReader

if TYPE_CHECKING:
    import pathlib

LOOK_EVERY_S = 1.0
"""Seconds between two looks at whether the run still lives."""

MAX_TEXT = 200
"""Characters of one line."""

_FIRST = ("model_name", "source_name", "actor_name", "name", "epoch", "step")


@click.command()
@click.argument("run", type=RUN, default="last")
@click.option(
    "-n",
    "lines",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="How many of the past events to show.",
)
@click.option("--from-seq", type=click.IntRange(min=1), help="Show all from this one.")
@click.option("--type", "types", multiple=True, help="Events of this type alone.")
@click.option("--no-follow", is_flag=True, help="Do not wait for more.")
@common
def tail(
    settings: Settings,
    run: str,
    lines: int,
    from_seq: int | None,
    types: tuple[str, ...],
    no_follow: bool,
) -> None:
    """Print the events of a run as they come, until it ends.

    With --json, one object on each line.
    """
    folder = find_folder(settings, run)
    wanted = _choose(types)
    show = _print_json if settings.as_json else _print_line
    reader = JournalReader(folder)
    last: log_events.Event | None = None
    past: collections.deque[log_events.Event] = collections.deque(maxlen=lines)
    take = past.append if from_seq is None else show
    for event in reader.read(reader.find((from_seq or 1) - 1)):
        last = event
        if wanted(event):
            take(event)
    for event in past:
        show(event)
    if no_follow or not _is_live(folder):
        return
    if isinstance(last, log_events.StopExperimentEvent):
        return
    for event in reader.read(reader.position, follow=True, stop=_Watch(folder)):
        if wanted(event):
            show(event)
        if isinstance(event, log_events.StopExperimentEvent):
            return


class _Watch:
    """Tells a reader at the end of the file whether the run has ended."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._next = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + LOOK_EVERY_S
        return not _is_live(self._folder)


def _is_live(folder: pathlib.Path) -> bool:
    try:
        return read_record(folder).status in ("created", *LIVE)
    except RecordError:
        return False


def _choose(types: tuple[str, ...]) -> Callable[[log_events.Event], bool]:
    """Return what chooses events; ``metric`` stands for ``MetricEvent``."""
    if not types:
        return lambda _: True
    names = {name.lower().removesuffix("event") for name in types}
    return lambda event: _type_name(event).lower().removesuffix("event") in names


def _type_name(event: log_events.Event) -> str:
    if isinstance(event, log_events.UnknownEvent):
        return event.type_name
    return type(event).__name__


def _fields(event: log_events.Event) -> dict[str, Any]:
    if isinstance(event, log_events.UnknownEvent):
        return dict(event.fields)
    return {
        name: value
        for name, value in event.__getstate__().items()
        if name not in ("_stamp", "push_updates")
    }


def _print_json(event: log_events.Event) -> None:
    stamp = event.stamp
    assert stamp is not None  # as all that are read have
    told = {"type": _type_name(event), **stamp._asdict(), "fields": _fields(event)}
    _output.print_json(to_json(told), indent=None)


def _print_line(event: log_events.Event) -> None:
    stamp = event.stamp
    assert stamp is not None  # as all that are read have
    fields = _fields(event)
    parts = []
    for name in _FIRST:
        value = fields.pop(name, None)
        if value not in (None, ""):
            plain = name.removesuffix("_name")
            parts.append(
                f"{plain}={value}" if plain in ("epoch", "step") else str(value)
            )
    for name, value in fields.items():
        if value in (None, "", [], {}) or name in ("config", "architecture_repr"):
            continue
        if (name, value) == ("axis", "step"):
            continue
        if isinstance(value, Mapping):
            parts += [f"{key}={_short(item)}" for key, item in value.items()]
        else:
            parts.append(f"{name}={_short(value)}")
    clock = time.strftime("%H:%M:%S", time.localtime(stamp.time))
    kind = _type_name(event).removesuffix("Event")
    text = " ".join(parts).replace("\n", " ")
    if len(text) > MAX_TEXT:
        text = text[: MAX_TEXT - 1] + "…"
    click.secho(f"{clock} {stamp.seq:>7} ", nl=False, dim=True)
    click.echo(f"{kind:<18} {text}")


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(to_json(value))
