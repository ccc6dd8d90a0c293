"""One page about a run, or about several beside each other, to send to a colleague.

::

    runs = drytrack.open_store("experiments").runs("Digits")
    write_report(runs[-1], "report.html")

The page is one file and asks for nothing from a network. What is published under
any name is shown as text: the page says itself, in a content security policy, that
no script but its own two may run.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import hashlib
import importlib.resources
import json
import pathlib
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from drytrack._frames import load
from drytrack.core._atomic import replace_file
from drytrack.store import StoredRun

if TYPE_CHECKING:
    import os

__all__ = ["make_report", "write_report"]

PAGE = "_report_page"
"""Folder of the template, its styles and its script."""

EXTRA = "report"


def write_report(
    runs: StoredRun | Iterable[StoredRun],
    path: str | os.PathLike[str] = "report.html",
    *,
    title: str | None = None,
) -> pathlib.Path:
    """Write a page about one run, or that compares several.

    Args:
        runs: Runs of a store, see `drytrack.open_store`. One that comes twice,
            from a folder and a database for example, counts once.
        path: The file; one that exists is replaced as a whole.
        title: Its heading, by default the experiment and the run.

    Returns:
        The file.

    Raises:
        MissingDependencyError: If jinja2, numpy, plotly or tsdownsample is not
            installed: they are the extra ``report``.
        ValueError: If there is no run.
        OSError: If the file cannot be written.
    """
    target = pathlib.Path(path)
    page = make_report(runs, title=title).encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, page)
    return target


def make_report(
    runs: StoredRun | Iterable[StoredRun], *, title: str | None = None
) -> str:
    """Return the page that `write_report` writes.

    Args:
        runs: As for `write_report`.
        title: As for `write_report`.

    Raises:
        MissingDependencyError: As for `write_report`.
        ValueError: If there is no run.
    """
    given = [runs] if isinstance(runs, StoredRun) else runs
    chosen = list({run.uuid: run for run in given}.values())
    if not chosen:
        raise ValueError("There is no run to report on. Pass at least one.")
    jinja2 = load("jinja2", EXTRA, "A report")
    for package in ("numpy", "tsdownsample", "plotly"):
        load(package, EXTRA, "A report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html")
    return str(template.render(_collect(chosen, title)))


def _collect(runs: list[StoredRun], title: str | None) -> dict[str, Any]:
    """Return what the template shows."""
    from drytrack import _report_facts as facts
    from drytrack._report_contents import read_run
    from drytrack._report_curves import build_charts, metric_lines, rate_lines
    from drytrack._report_media import Cabinet
    from drytrack.trackers._plot_style import LOOKS, MARK_NAMES

    names = facts.name_runs(runs)
    contents = dict(zip(names, map(read_run, runs), strict=True))
    # One run needs no name in its legends.
    labels = names if len(runs) > 1 else [""]
    labelled = dict(zip(labels, contents.values(), strict=True))
    charts = {
        "curves": build_charts(metric_lines(labelled)),
        "rates": build_charts(rate_lines(labelled)),
    }
    cabinet = Cabinet()
    media = {name: cabinet.add(known) for name, known in contents.items()}
    cabinet.fill()
    data = {
        **charts,
        "histories": cabinet.histories,
        "figures": cabinet.figures,
        "looks": {theme: dataclasses.asdict(look) for theme, look in LOOKS.items()},
        "markNames": MARK_NAMES,
    }
    drawn = any([*charts.values(), cabinet.histories, cabinet.figures])
    script = _read("page.js")
    scripts = [script, _plotly()] if drawn else [script]
    return {
        "title": title or _make_title(runs, names),
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "style": _read("page.css"),
        "script": script,
        "hashes": " ".join(map(_hash, scripts)),
        "plotly": _pack_plotly() if drawn else "",
        "data": _pack(json.dumps(data, separators=(",", ":"))),
        "looks": LOOKS,
        "names": names,
        "runs": dict(zip(names, runs, strict=True)),
        "about": facts.compare(names, map(facts.describe, runs)),
        "metrics": facts.summaries(names, runs),
        "params": facts.compare(names, [run.params() for run in runs]),
        "values": facts.compare(names, [run.values() for run in runs]),
        "environment": facts.environment(names, runs),
        "details": {
            name: {
                "Checkpoints": facts.checkpoints(run),
                "Artifacts": facts.artifacts(contents[name]),
                "Attempts": facts.attempts(run),
                "Costs of trackers": facts.costs(run),
            }
            for name, run in zip(names, runs, strict=True)
        },
        "charts": charts,
        "schedulers": facts.schedulers(contents),
        "media": media,
        "left_out": cabinet.left_out,
        "contents": contents,
    }


def _make_title(runs: list[StoredRun], names: list[str]) -> str:
    experiments = ", ".join(dict.fromkeys(run.experiment for run in runs))
    if len(runs) == 1:
        return f"{experiments} · {runs[0].name}"
    listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{experiments} · {len(runs)} runs: {listed}"


def _read(name: str) -> str:
    file = importlib.resources.files("drytrack") / PAGE / name
    return file.read_text(encoding="utf-8")


def _pack(text: str) -> str:
    """Return a text in a form that a page can hold whatever it says."""
    packed = gzip.compress(text.encode("utf-8", "replace"), mtime=0)
    return base64.b64encode(packed).decode("ascii")


@functools.cache
def _plotly() -> str:
    offline = load("plotly.offline", EXTRA, "A report")
    return str(offline.get_plotlyjs())


@functools.cache
def _pack_plotly() -> str:
    return _pack(_plotly())


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
