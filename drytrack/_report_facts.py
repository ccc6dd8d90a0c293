"""What ran, as the lines and tables of a report: text, made from stored runs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from drytrack._summaries import flatten
from drytrack._wording import at, duration, moment, number

if TYPE_CHECKING:
    from drytrack._report_contents import Contents
    from drytrack.store import StoredRun

LIVE = ("running", "stalled")

_LONG = ("packages", "imported")
"""Parts of an environment that are lists of their own."""


class Grid(NamedTuple):
    """A table of text.

    Attributes:
        header: The columns; the first one names the rows.
        rows: The cells, each row as long as the header.
        differs: For each row, whether its cells differ between the columns.
    """

    header: list[str]
    rows: list[list[str]]
    differs: list[bool]


def name_runs(runs: Sequence[StoredRun]) -> list[str]:
    """Return what each run is called, so that no two are called alike."""
    names = [run.id for run in runs]
    if len({run.experiment for run in runs}) > 1:
        names = [f"{run.experiment}/{run.id}" for run in runs]
    if len(set(names)) < len(names):  # they are from two folders
        pairs = zip(names, runs, strict=True)
        names = [f"{name} ({run.uuid[:8]})" for name, run in pairs]
    return names


def describe(run: StoredRun) -> dict[str, str]:
    """Return what a run was and how it went."""
    environment = _environment(run)
    facts = {
        "experiment": run.experiment,
        "run": run.id,
        "name": run.name if run.name != run.id else "",
        "status": run.status,
        "attempts": str(run.attempt),
        "started": moment(run.started),
        "ended": moment(run.ended),
        "took": duration(took(run)),
        "tags": ", ".join(run.tags),
        "about": run.description or "",
        "notes": run.notes,
        "host": str(environment.get("host") or ""),
        "command": " ".join(map(str, environment.get("command_line") or ())),
        "git": describe_git(environment.get("git")),
        "uuid": run.uuid,
    }
    return {name: value for name, value in facts.items() if value}


def took(run: StoredRun) -> float | None:
    """Return how long a run went on, or has done so far, in seconds."""
    if run.started is None:
        return None
    if run.ended is not None:
        return run.ended - run.started
    return time.time() - run.started if run.status in LIVE else None


def describe_git(git: object) -> str:
    """Return the commit of a run's environment, and whether it was changed."""
    if not isinstance(git, Mapping):
        return ""
    commit = str(git.get("commit") or "")[:10]
    changed = " with changes" if git.get("dirty") else ""
    return f"{commit} {git.get('branch') or ''}{changed}".strip()


def _environment(run: StoredRun) -> Mapping[str, Any]:
    found = _last_attempt(run).get("environment")
    return found if isinstance(found, Mapping) else {}


def _last_attempt(run: StoredRun) -> Mapping[str, Any]:
    attempts = run.record.get("attempts") or [{}]
    return attempts[-1] if isinstance(attempts[-1], Mapping) else {}


def compare(names: Sequence[str], sides: Iterable[Mapping[str, Any]]) -> Grid:
    """Return a table with a row for each name and a column for each run."""
    columns = list(sides)
    rows, differs = [], []
    for name in dict.fromkeys(name for side in columns for name in side):
        cells = [_say(side[name]) if name in side else "" for side in columns]
        rows.append([name, *cells])
        differs.append(len(set(cells)) > 1)
    header = ["", *names] if len(columns) > 1 else ["name", "value"]
    return Grid(header, rows, differs)


def _say(value: object) -> str:
    return value if isinstance(value, str) else repr(value)


def environment(names: Sequence[str], runs: Sequence[StoredRun]) -> dict[str, Grid]:
    """Return where the newest attempt of each run ran, long lists by themselves."""
    found = [dict(_environment(run)) for run in runs]
    lists = {key: [flatten(each.pop(key, None)) for each in found] for key in _LONG}
    grids = {"environment": compare(names, [flatten(each) for each in found])}
    grids.update((key, compare(names, sides)) for key, sides in lists.items())
    return {key: grid for key, grid in grids.items() if grid.rows}


def attempts(run: StoredRun) -> Grid:
    """Return the attempts of a run."""
    rows = []
    for number_, entry in enumerate(run.record.get("attempts") or (), start=1):
        error = entry.get("error") or {}
        problem = ": ".join(filter(None, (error.get("type"), error.get("message"))))
        began, ended = entry.get("started"), entry.get("ended")
        length = duration(ended - began) if began and ended else ""
        status = str(entry.get("status") or "")
        rows.append([str(number_), moment(began), length, status, problem])
    header = ["attempt", "started", "took", "ended as", "error"]
    return Grid(header, rows, [False] * len(rows))


def summaries(names: Sequence[str], runs: Sequence[StoredRun]) -> Grid:
    """Return a row for each series; of several runs, their last and best values."""
    if len(runs) == 1:
        header = ["metric", "source", "axis", "n", "last", "min", "max", "best"]
        rows = [
            [
                " · ".join(filter(None, (each.key.model, each.key.metric))),
                each.key.source,
                each.key.axis,
                str(each.count),
                at(each.last, each.last_at),
                at(each.min, each.min_at),
                at(each.max, each.max_at),
                at(each.best, each.best_at) if each.better else "",
            ]
            for each in runs[0].summaries()
        ]
        return Grid(header, rows, [False] * len(rows))
    sides = [
        {
            " · ".join(filter(None, each.key)): number(each.last)
            + (f" (best {at(each.best, each.best_at)})" if each.better else "")
            for each in run.summaries()
        }
        for run in runs
    ]
    grid = compare(names, sides)
    return Grid(["last value of", *grid.header[1:]], grid.rows, grid.differs)


def checkpoints(run: StoredRun) -> Grid:
    """Return the saved models, the newest first."""
    rows = [
        [saved.model, _say_epoch(saved.epoch), saved.definition, saved.location]
        for saved in reversed(run.checkpoints())
    ]
    header = ["model", "epoch", "what", "where"]
    return Grid(header, rows, [False] * len(rows))


def _say_epoch(epoch: int | None) -> str:
    return "" if epoch is None else str(epoch)


def costs(run: StoredRun) -> Grid:
    """Return what the journal and each tracker of the newest attempt have cost."""
    rows = [
        [
            str(entry["name"]),
            str(entry["calls"]),
            f"{entry['training_s']:.3g} s",
            f"{entry['share']:.2%}",
            f"{entry['worker_s']:.3g} s",
        ]
        for entry in _last_attempt(run).get("costs") or ()
    ]
    header = ["tracker", "events", "training thread", "of the run", "own thread"]
    return Grid(header, rows, [False] * len(rows))


def artifacts(contents: Contents) -> Grid:
    """Return the files of a run, the newest of each name."""
    rows = [
        [name, event.kind, str(event.path)]
        for name, event in contents.artifacts.items()
    ]
    return Grid(["artifact", "kind", "where"], rows, [False] * len(rows))


def schedulers(contents: Mapping[str, Contents]) -> list[str]:
    """Return what sets the learning rates: a line for each model and source."""
    return [
        " · ".join(filter(None, (name if len(contents) > 1 else "", *place, scheduler)))
        for name, known in contents.items()
        for place, scheduler in known.schedulers.items()
    ]
