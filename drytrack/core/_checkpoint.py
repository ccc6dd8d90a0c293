"""What a checkpoint keeps of a run, so that a restart goes on with it.

The methods follow PyTorch's ``Stateful`` protocol. The state is one text under one
key: `torch.distributed.checkpoint` fills what ``state_dict()`` returns before the
load, so that it must have the same keys then as when it was saved.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from drytrack.core import _current
from drytrack.core.exceptions import RecordError, RunExistsError, RunStateError

if TYPE_CHECKING:
    from drytrack.core.experiment import Experiment
    from drytrack.core.run import Run

KEY: Final = "run"
VERSION: Final = 1

OPENING_TIMEOUT_S: Final = 10.0
"""How long a state waits for a backend that has no run id of its own yet."""


def pack(run: Run[Any]) -> dict[str, str]:
    """Return what is needed to go on with a run, on whatever machine.

    On a rank that does not track this is nothing: of a key that several ranks have,
    a distributed checkpoint keeps the value of any one of them.
    """
    if not run.is_main:
        return {}
    record = run._record_data if run._record is None else run._record.data
    kept = run.bus.kept() if run.status != "created" else record.get("trackers", {})
    attempts = [
        {key: value for key, value in attempt.items() if key != "environment"}
        for attempt in record["attempts"]
    ]
    content = {
        "version": VERSION,
        "experiment": run.experiment.name,
        "id": run.id,
        "uuid": run.uuid,
        "created": record["created"],
        "attempts": attempts or [{}] * (run.attempt - (run.status == "created")),
        "summary": dict(run._summary),
        "steps": dict(run.last_steps),
        "trackers": {
            name: {"state": entry.get("state", {})} for name, entry in kept.items()
        },
    }
    return {KEY: json.dumps(content, default=str)}


def unpack(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the content of a state; None where there was no run to save.

    Raises:
        RecordError: If it is none of ours, or of a newer version.
    """
    if isinstance(state, Mapping) and not state:  # of a rank that does not track
        return None
    text = state.get(KEY) if isinstance(state, Mapping) else None
    if text == "":
        return None
    try:
        content = json.loads(text)  # type: ignore[arg-type]  # checked by failing
        version = content["version"]
        content["id"], content["uuid"], content["experiment"], content["attempts"]
    except (TypeError, ValueError, KeyError) as err:
        msg = (
            f"This is no state of a run: {str(state)[:80]!r}. Pass what state_dict() "
            f"has returned."
        )
        raise RecordError(msg) from err
    if version > VERSION:
        msg = (
            f"The state of run {content['id']!r} has version {version}, written by a "
            f"newer drytrack; this one reads {VERSION}. Upgrade drytrack."
        )
        raise RecordError(msg)
    return dict(content)


class RunState:
    """The part of `Run` that goes into a checkpoint."""

    def state_dict(self: Any) -> dict[str, str]:
        """Return what a checkpoint keeps of the run; at any time.

        Returns:
            A text under one key, for ``experiment.load_state_dict``; nothing on a
            rank that does not track.
        """
        # A hosted run has an id once it is open there, which takes a moment.
        deadline = time.monotonic() + OPENING_TIMEOUT_S
        for guest in list(self.bus.guests.values()):
            guest.wait_until_open(self, deadline - time.monotonic())
        return pack(self)

    def load_state_dict(self: Any, state_dict: Mapping[str, Any]) -> None:
        """Check that the run is the one of a checkpoint; it cannot become it.

        Args:
            state_dict: What `state_dict` has returned.

        Raises:
            RunStateError: If the run has started, or is another one.
            RecordError: If it is no state of a run.
        """
        content = unpack(state_dict)
        if self.status != "created":
            raise _too_late(self, "it")
        if content is not None and content["uuid"] != self.uuid:
            msg = (
                f"The state is of run {content['id']!r}, and this is run {self.id!r}. "
                f"Load it into the experiment before the run is created: "
                f"experiment.load_state_dict(…)."
            )
            raise RunStateError(msg)


class ExperimentState:
    """The part of `Experiment` that goes into a checkpoint."""

    _loaded: dict[str, Any] | None = None
    _ended_state: dict[str, str] | None = None

    def state_dict(self: Any) -> dict[str, str]:
        """Return what a checkpoint keeps of the newest run.

        Returns:
            A text under one key; it is empty before the first run.
        """
        runs = [run for run in _current.active_runs() if run.experiment is self]
        if runs:
            return runs[-1].state_dict()
        if self._loaded is not None:
            return {KEY: json.dumps(self._loaded)}
        return {KEY: ""} if self._ended_state is None else self._ended_state

    def load_state_dict(self: Any, state_dict: Mapping[str, Any]) -> None:
        """Let the next run that is created go on with the one of a checkpoint.

        Where its folder is not to be seen, the run is recorded anew under its old
        id; hosted backends re-attach to it all the same.

        Args:
            state_dict: What `state_dict` has returned.

        Raises:
            RunStateError: If a run of this experiment is active.
            RecordError: If it is no state, or of another experiment.
        """
        content = unpack(state_dict)
        for run in _current.active_runs():
            if run.experiment is self:
                raise _too_late(run, repr(self.name))
        if content is not None and content["experiment"] != self.name:
            msg = (
                f"The state is of experiment {content['experiment']!r}, and this one "
                f"is {self.name!r}. Name it alike: Experiment(name="
                f"{content['experiment']!r})."
            )
            raise RecordError(msg)
        self._loaded = content


def _too_late(run: Run[Any], what: str) -> RunStateError:
    return RunStateError(
        f"Run {run.id!r} has started, so {what} can load no state. Load it into the "
        f"experiment before the run is created: experiment.load_state_dict(…)."
    )


def adopt(
    experiment: Experiment[Any], found: dict[str, Any] | None
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Use the state that was loaded, for the run that is being created.

    Args:
        experiment: The experiment.
        found: The record of the run on this machine, if it is there.

    Returns:
        The record to go on with, and what a new record is to hold if there is none.

    Raises:
        RunExistsError: If another run has the id here.
    """
    content, experiment._loaded = experiment._loaded, None
    assert content is not None  # the caller has looked
    if found is None:
        names = ("uuid", "created", "attempts", "summary", "trackers")
        entries = {name: content[name] for name in names}
        return None, {**entries, "journal": {"steps": content["steps"]}}
    if found["uuid"] != content["uuid"]:
        msg = (
            f"Run {content['id']!r} of {experiment.name!r} exists here, and is not the "
            f"one of the checkpoint. Record in another folder: Experiment(par_dir=…)."
        )
        raise RunExistsError(msg)
    found["trackers"] = {**content["trackers"], **found.get("trackers", {})}
    return found, {}
