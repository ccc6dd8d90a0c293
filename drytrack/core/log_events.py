"""The events of an experiment's life cycle.

Creating an event publishes it to the current run. The classes are frozen
dataclasses; a user's own derives from `Event` in the same way::

    @dataclasses.dataclass(frozen=True)
    class BeamSearchEvent(Event):
        source_name: str
        beams: int

Fields that follow inherited defaults need ``kw_only=True``. What an event
carries is a snapshot: it changes neither with the caller's objects nor by
what a tracker does. ``dataclasses.replace`` publishes the new event; ``copy``
and ``pickle`` do not.
"""

from __future__ import annotations

import dataclasses
import itertools
import operator
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from drytrack.core import _door
from drytrack.core._constructor import compile_constructor
from drytrack.core.exceptions import EventDefinitionError, EventValueError

__all__ = [
    "ActorRegistrationEvent",
    "ArtifactEvent",
    "EndEpochEvent",
    "EndTestEvent",
    "EndTrainingEvent",
    "Event",
    "FigureEvent",
    "HistogramEvent",
    "ImageEvent",
    "IterateBatchEvent",
    "LearningRateEvent",
    "LoadModelEvent",
    "MetricEvent",
    "ModelRegistrationEvent",
    "ParamsEvent",
    "SaveModelEvent",
    "Stamp",
    "StartEpochEvent",
    "StartExperimentEvent",
    "StartTestEvent",
    "StartTrainingEvent",
    "StepMetricEvent",
    "StopExperimentEvent",
    "SummaryEvent",
    "TableEvent",
    "TerminatedTrainingEvent",
    "TextEvent",
    "UnknownEvent",
]


class Stamp(NamedTuple):
    """Where in its run an event stands.

    Attributes:
        seq: Sequence number in the run, from 1, without gaps in its journal;
            negative, and of no meaning later, where there is no journal.
        attempt: The attempt that published it, from 1.
        time: When it was published, in seconds since the epoch.
    """

    seq: int
    attempt: int
    time: float


@dataclasses.dataclass(frozen=True)
class Event:
    """Base of all events; creating one of a derived class publishes it.

    A derived class may define ``before_publish(self)``: it is called when all
    fields are set and nobody has seen the event, and refuses it by raising.

    Raises:
        AccessOutsideScopeError: On creation, where there is no current run.
        EventValueError: On creation, if a field is refused at the door.
        EventDefinitionError: When a class is defined with an ``__init__`` or
            a ``__post_init__`` of its own.
    """

    __slots__ = ("__weakref__", "_stamp")

    _doors: ClassVar[Mapping[str, _door.Door]] = {}

    if TYPE_CHECKING:

        @property
        def _stamp(self) -> tuple[int, int, float]: ...

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse what would publish too early or never; merge the doors."""
        super().__init_subclass__(**kwargs)
        # dataclass(slots=True) makes the class a second time, with its __init__.
        if "__dataclass_fields__" in vars(cls):
            return
        for method in ("__init__", "__post_init__", "__new__"):
            if method in vars(cls):
                msg = (
                    f"{cls.__qualname__} defines {method}, which would run after "
                    f"publication, or prevent it. Check fields in "
                    f"before_publish(self), which runs before it."
                )
                raise EventDefinitionError(msg)
        # dataclass() leaves alone what stands in the class itself: its own
        # __eq__ raises on arrays, its __hash__ on mappings.
        for method in ("__eq__", "__hash__", "__getstate__", "__setstate__"):
            if method not in vars(cls):
                setattr(cls, method, getattr(cls, method))
        inherited: dict[str, _door.Door] = {}
        for base in reversed(cls.__mro__[1:]):
            inherited.update(vars(base).get("_doors", {}))
        cls._doors = {**inherited, **vars(cls).get("_doors", {})}
        # Not the compiled ones of a parent, which know its fields alone.
        cls._fill = Event._fill  # type: ignore[method-assign]  # compiled per class
        cls._as_line = Event._as_line  # type: ignore[method-assign]  # compiled per class
        if not any(name.startswith("__annot") for name in vars(cls)):
            # Without fields of its own, it need not be made a dataclass.
            cls.__init__ = _compile_first  # type: ignore[assignment, method-assign]  # replaced by the compiled one

    def __post_init__(self, *init_vars: Any) -> None:
        """Compile the constructor when the first instance is made; publish it."""
        cls = type(self)
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.init
        }
        compile_constructor(cls)
        cls.__init__(self, **values)

    def _fill(self, *args: Any, **kwargs: Any) -> None:
        """Check and store the fields; replaced by the compiled one."""
        compile_constructor(type(self))
        self._fill(*args, **kwargs)

    def _as_line(self, *head: Any) -> dict[str, Any]:
        """Return a journal line as a dictionary; replaced by the compiled one."""
        compile_constructor(type(self))
        return self._as_line(*head)

    @classmethod
    def unpublished(cls, *args: Any, **kwargs: Any) -> Self:
        """Build an event that nobody hears of: for replay, tests and copies.

        Args:
            *args: As for the constructor.
            **kwargs: As for the constructor.

        Raises:
            EventValueError: If a field is refused at the door.
        """
        event = cls.__new__(cls)
        event._fill(*args, **kwargs)
        return event

    @property
    def stamp(self) -> Stamp | None:
        """Where in its run the event stands; None where nobody kept count."""
        stamp = getattr(self, "_stamp", None)
        return None if stamp is None else Stamp(*stamp)

    def __eq__(self, other: object) -> bool:
        """Compare type and fields, arrays included, NaN equal to itself."""
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        return all(
            _same(getattr(self, field.name), getattr(other, field.name))
            for field in dataclasses.fields(self)
            if field.compare
        )

    def __hash__(self) -> int:
        """Hash type and plain fields: mappings and arrays cannot be hashed."""
        values = [getattr(self, f.name) for f in dataclasses.fields(self) if f.compare]
        # Whatever is equal by `_same` must hash alike: 1 and 1.0 do, NaN does not.
        plain = [v for v in values if isinstance(v, (str, int, float)) and v == v]
        return hash((type(self), *plain))

    def __getstate__(self) -> dict[str, Any]:
        """Return fields and stamp, for copy and pickle."""
        state = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**state, "_stamp": getattr(self, "_stamp", None)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore fields and stamp without publishing."""
        for name, value in state.items():
            object.__setattr__(self, name, value)


def _compile_first(self: Event, *args: Any, **kwargs: Any) -> None:
    compile_constructor(type(self))
    type(self).__init__(self, *args, **kwargs)


def _same(left: Any, right: Any) -> bool:
    if left is right:
        return True
    # Decimal(1) == 1, but only what is hashed alike may be the same.
    for kind in (str, int | float):
        if isinstance(left, kind) != isinstance(right, kind):
            return False
    if hasattr(left, "shape") != hasattr(right, "shape"):
        return False
    if hasattr(left, "shape") and hasattr(left, "equals"):  # a data frame
        return type(left) is type(right) and bool(left.equals(right))
    if hasattr(left, "shape"):
        if left.shape != right.shape or left.dtype != right.dtype:
            return False
        return bool(
            ((left == right) | ((left != left) & (right != right))).all()
        )  # NaN
    if isinstance(left, float) and isinstance(right, float):
        return left == right or (left != left and right != right)  # NaN
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(
            _same(value, right[key]) for key, value in left.items()
        )
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


@dataclasses.dataclass(frozen=True, slots=True)
class StartExperimentEvent(Event):
    """A run starts, or goes on.

    Attributes:
        config: The configuration as plain data, secrets masked.
        exp_name: Name of the experiment.
        run_ts: When the run was first created, local time.
        run_id: Id of the run, unique in its experiment.
        resumed: Whether the run goes on from an earlier attempt.
        par_dir: The folder that the experiment writes to.
        tags: Labels of the run.
        description: What the experiment is about.
        attempt: Number of the attempt, from 1.
    """

    config: Any
    exp_name: str
    run_ts: Any
    run_id: str
    resumed: bool = False
    par_dir: pathlib.Path = pathlib.Path()
    tags: Sequence[str] = dataclasses.field(default_factory=list)
    description: str | None = None
    attempt: int = 1

    _doors = {
        "config": _door.plain,
        "exp_name": _door.text,
        "run_id": _door.text,
        "par_dir": _door.path,
        "tags": _door.names,
        "description": _door.optional_text,
        "attempt": _door.index,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class StopExperimentEvent(Event):
    """A run ends.

    Attributes:
        exp_name: Name of the experiment.
        run_id: Id of the run.
        status: ``completed``, ``failed`` or ``interrupted``.
        summary: Final values, as set by the user.
        error: None, or ``type``, ``message`` and ``traceback`` of the
            exception that ended the run.
    """

    exp_name: str
    run_id: str
    status: str = "completed"
    summary: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    error: Mapping[str, str] | None = None

    _doors = {
        "exp_name": _door.text,
        "run_id": _door.text,
        "status": _door.text,
        "summary": _door.plain_mapping,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class ModelRegistrationEvent(Event):
    """A model takes part in the run.

    Attributes:
        model_name: Name of the model.
        model_ts: When it was registered, local time.
        architecture_repr: Its ``repr``.
    """

    model_name: str
    model_ts: Any
    architecture_repr: str

    _doors = {"model_name": _door.name, "architecture_repr": _door.text}


@dataclasses.dataclass(frozen=True, slots=True)
class ActorRegistrationEvent(Event):
    """An object (trainer, evaluator) becomes a source of events.

    Attributes:
        actor_name: Its name, the ``source_name`` of its events.
        actor_ts: When it was registered, local time.
        model_name: The model that it works on.
        model_ts: When that model was registered.
        metadata: What the actor is made of, as plain data.
    """

    actor_name: str
    actor_ts: Any
    model_name: str
    model_ts: Any
    metadata: Any

    _doors = {
        "actor_name": _door.name,
        "model_name": _door.name,
        "metadata": _door.plain,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class SaveModelEvent(Event):
    """A checkpoint was saved.

    Attributes:
        model_name: Name of the model.
        definition: What was saved, such as ``checkpoint`` or ``weights``.
        location: The file, folder or address.
        epoch: The epoch that it was saved after, or None.
    """

    model_name: str
    definition: str
    location: Any
    epoch: int | None

    _doors = {
        "model_name": _door.name,
        "definition": _door.text,
        "location": _door.location,
        "epoch": _door.optional_index,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class LoadModelEvent(Event):
    """A checkpoint was loaded.

    Attributes:
        model_name: Name of the model.
        definition: What was loaded, such as ``checkpoint`` or ``weights``.
        location: The file, folder or address.
        epoch: The epoch that it had been saved after, or None.
    """

    model_name: str
    definition: str
    location: Any
    epoch: int | None

    _doors = SaveModelEvent._doors


@dataclasses.dataclass(frozen=True, slots=True)
class StartTrainingEvent(Event):
    """Training starts.

    Attributes:
        source_name: Who trains.
        model_name: What is trained.
        start_epoch: First epoch.
        end_epoch: Last epoch.
    """

    source_name: str
    model_name: str
    start_epoch: int
    end_epoch: int

    _doors = {
        "source_name": _door.name,
        "model_name": _door.name,
        "start_epoch": _door.index,
        "end_epoch": _door.index,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class StartEpochEvent(Event):
    """An epoch starts.

    Attributes:
        source_name: Who trains.
        model_name: What is trained.
        epoch: The epoch.
        end_epoch: The last one planned, if known.
    """

    source_name: str
    model_name: str
    epoch: int
    end_epoch: int | None = None

    _doors = {
        "source_name": _door.name,
        "model_name": _door.name,
        "epoch": _door.index,
        "end_epoch": _door.optional_index,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class EndEpochEvent(Event):
    """An epoch ends.

    Attributes:
        source_name: Who trains.
        model_name: What is trained.
        epoch: The epoch.
    """

    source_name: str
    model_name: str
    epoch: int

    _doors = {
        "source_name": _door.name,
        "model_name": _door.name,
        "epoch": _door.index,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class IterateBatchEvent(Event):
    """One pass over a loader begins; trackers push callbacks to follow it.

    Attributes:
        source_name: Who iterates.
        batch_size: Samples in a batch, or None.
        n_iter: Batches in the pass, or None where the loader has no length.
        dataset_size: Samples in the pass, or None.
        push_updates: Callbacks that trackers append; see `update`.
    """

    source_name: str
    batch_size: int | None
    n_iter: int | None
    dataset_size: int | None
    push_updates: list[Callable[[Mapping[str, float], int], None]] = dataclasses.field(
        default_factory=list
    )

    _doors = {
        "source_name": _door.name,
        "batch_size": _door.optional_index,
        "n_iter": _door.optional_index,
        "dataset_size": _door.optional_index,
        "push_updates": _door.as_is,
    }

    def update(self, metrics: Mapping[str, float], n_processes: int = 1) -> None:
        """Call the callbacks that trackers pushed, each isolated as handlers are.

        Args:
            metrics: The latest values.
            n_processes: How many processes have iterated a batch each.
        """
        from drytrack.core import _current

        if self.push_updates:
            _current.current_run().bus.push(self, metrics, n_processes)


@dataclasses.dataclass(frozen=True, slots=True)
class TerminatedTrainingEvent(Event):
    """Training ends before its last epoch.

    Attributes:
        source_name: Who trained.
        model_name: What was trained.
        epoch: The epoch that it ended in.
        reason: Why.
    """

    source_name: str
    model_name: str
    epoch: int
    reason: str

    _doors = {
        "source_name": _door.name,
        "model_name": _door.name,
        "epoch": _door.index,
        "reason": _door.text,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class EndTrainingEvent(Event):
    """Training ends.

    Attributes:
        source_name: Who trained.
    """

    source_name: str

    _doors = {"source_name": _door.name}


@dataclasses.dataclass(frozen=True, slots=True)
class StartTestEvent(Event):
    """A test starts.

    Attributes:
        source_name: Who tests.
        model_name: What is tested.
    """

    source_name: str
    model_name: str

    _doors = {"source_name": _door.name, "model_name": _door.name}


@dataclasses.dataclass(frozen=True, slots=True)
class EndTestEvent(Event):
    """A test ends.

    Attributes:
        source_name: Who tested.
        model_name: What was tested.
    """

    source_name: str
    model_name: str

    _doors = {"source_name": _door.name, "model_name": _door.name}


@dataclasses.dataclass(frozen=True, slots=True)
class MetricEvent(Event):
    """Metrics of an epoch.

    Attributes:
        model_name: What was measured.
        source_name: Who measured.
        epoch: The epoch.
        metrics: Name → value, each a float; NaN and ±inf are values.
    """

    model_name: str
    source_name: str
    epoch: int
    metrics: Mapping[str, float]

    _doors = {
        "model_name": _door.name,
        "source_name": _door.name,
        "epoch": _door.index,
        "metrics": _door.metrics,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class LearningRateEvent(Event):
    """The learning rate changed, or was read.

    Attributes:
        model_name: What is trained.
        source_name: Who trains.
        epoch: The epoch from which it holds.
        base_lr: The rate, one for each parameter group (a list, or a mapping by
            name), or None.
        scheduler_name: The scheduler that set it.
    """

    model_name: str
    source_name: str
    epoch: int
    base_lr: float | Sequence[float] | Mapping[str, float] | None = None
    scheduler_name: str | None = None

    _doors = {
        "model_name": _door.name,
        "source_name": _door.name,
        "epoch": _door.index,
        "base_lr": _door.number_or_numbers,
        "scheduler_name": _door.optional_text,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class StepMetricEvent(Event):
    """Metrics of a step.

    Attributes:
        source_name: Who measured.
        step: The update index, global to the run.
        metrics: Name → value, each a float; NaN and ±inf are values.
        context: Labels such as ``{"split": "val"}``.
        axis: What the step counts.
        model_name: What was measured; empty where it has no name.
    """

    source_name: str
    step: int
    metrics: Mapping[str, float]
    context: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    axis: str = "step"
    model_name: str = ""

    _doors = {
        "source_name": _door.name,
        "step": _door.index,
        "metrics": _door.metrics,
        "context": _door.context,
        "axis": _door.name,
        "model_name": _door.optional_name,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class ParamsEvent(Event):
    """Parameters that were chosen, or computed, after the start.

    Attributes:
        params: Plain data, possibly nested, secrets masked.
    """

    params: Mapping[str, Any]

    _doors = {"params": _door.plain_mapping}


@dataclasses.dataclass(frozen=True, slots=True)
class HistogramEvent(Event):
    """A distribution at a step.

    Attributes:
        source_name: Who measured.
        name: What was measured.
        step: The update index.
        counts: Values in each bin, shape (n_bins,).
        bin_edges: Edges of the bins, ascending, shape (n_bins + 1,).
        context: Labels such as ``{"split": "val"}``.
    """

    source_name: str
    name: str
    step: int
    counts: Sequence[float]
    bin_edges: Sequence[float]
    context: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    _doors = {
        "source_name": _door.name,
        "name": _door.name,
        "step": _door.index,
        "counts": _door.numbers,
        "bin_edges": _door.numbers,
        "context": _door.context,
    }

    def before_publish(self) -> None:
        """Refuse counts and edges that do not fit each other."""
        edges = self.bin_edges
        fits = len(edges) == len(self.counts) + 1 and len(edges) > 1
        ascending = map(operator.lt, edges, itertools.islice(edges, 1, None))
        if not (fits and all(ascending)):
            msg = (
                f"histogram {self.name!r} has {len(self.counts)} counts and "
                f"{len(edges)} bin edges. Pass n counts and n + 1 ascending edges."
            )
            raise EventValueError(msg)


@dataclasses.dataclass(frozen=True, slots=True)
class ImageEvent(Event):
    """An image at a step.

    Attributes:
        source_name: Who made it.
        name: What it shows.
        step: The update index.
        image: A `MediaFile`, or a read-only uint8 array of shape (H, W),
            (H, W, 3) or (H, W, 4).
        caption: A line of text below it.
    """

    source_name: str
    name: str
    step: int
    image: Any
    caption: str | None = None

    _doors = {
        "source_name": _door.name,
        "name": _door.name,
        "step": _door.index,
        "image": _door.image,
        "caption": _door.optional_text,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class FigureEvent(Event):
    """A figure at a step, rendered when published.

    Attributes:
        source_name: Who drew it.
        name: What it shows.
        step: The update index.
        figure: A `MediaFile`: PNG for matplotlib, JSON for plotly.
        caption: A line of text below it.
    """

    source_name: str
    name: str
    step: int
    figure: Any
    caption: str | None = None

    _doors = {
        "source_name": _door.name,
        "name": _door.name,
        "step": _door.index,
        "figure": _door.figure,
        "caption": _door.optional_text,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class TableEvent(Event):
    """A table at a step.

    Attributes:
        source_name: Who made it.
        name: What it shows.
        step: The update index.
        columns: Names of the columns, length n_columns.
        rows: Cells, shape (n_rows, n_columns).
    """

    source_name: str
    name: str
    step: int
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    _doors = {
        "source_name": _door.name,
        "name": _door.name,
        "step": _door.index,
        "columns": _door.names,
        "rows": _door.cells,
    }

    def before_publish(self) -> None:
        """Refuse rows that are not as long as the header."""
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                msg = (
                    f"row {number} of table {self.name!r} has {len(row)} cells for "
                    f"{len(self.columns)} columns. Fill the missing cells with None."
                )
                raise EventValueError(msg)


@dataclasses.dataclass(frozen=True, slots=True)
class TextEvent(Event):
    """A text at a step.

    Attributes:
        source_name: Who wrote it.
        name: What it is.
        step: The update index.
        text: The text.
    """

    source_name: str
    name: str
    step: int
    text: str

    _doors = {
        "source_name": _door.name,
        "name": _door.name,
        "step": _door.index,
        "text": _door.text,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class ArtifactEvent(Event):
    """A file or folder belongs to the run.

    Attributes:
        name: Name of the artifact.
        path: Where it is.
        kind: What it is, such as ``model`` or ``dataset``.
        metadata: Plain data about it, such as a hash.
        artifact_path: The folder within the run to file it under, or None.
    """

    name: str
    path: pathlib.Path
    kind: str
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    artifact_path: str | None = None

    _doors = {
        "name": _door.name,
        "path": _door.path,
        "kind": _door.text,
        "metadata": _door.plain_mapping,
        "artifact_path": _door.optional_text,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class UnknownEvent(Event):
    """An event read from a journal whose class is not defined here.

    Attributes:
        type_name: ``module:QualName`` of its class.
        fields: Its fields, as plain data where their types are unknown too.
    """

    type_name: str
    fields: Mapping[str, Any]

    _doors = {"type_name": _door.text}


@dataclasses.dataclass(frozen=True, slots=True)
class SummaryEvent(Event):
    """Values that stand for the whole run, such as its best accuracy.

    Attributes:
        summary: Name → value, plain data.
    """

    summary: Mapping[str, Any]

    _doors = {"summary": _door.plain_mapping}
