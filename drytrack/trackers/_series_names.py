"""What a series is called where a tool knows names and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from drytrack.core._history import series_name
from drytrack.core._routing import SOURCE

__all__ = ["Series", "SeriesNames"]

_FIRST_MODEL = "first_model"


class Series(NamedTuple):
    """What is measured over time, but for its context.

    Attributes:
        model: The model, or "" where it has no name.
        source: Who measured.
        metric: What was measured.
        axis: What its steps count; "" for what has no axis, such as images.
    """

    model: str
    source: str
    metric: str
    axis: str


class SeriesNames:
    """Names the series of one run, each in its own way; see `Backend` for the rule.

    Args:
        state: Where the first model is kept, so that a resumed run has the same one.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state
        self._names: dict[tuple[Series, tuple[tuple[str, str], ...]], str] = {}
        self._taken: set[str] = set()

    def note_model(self, model: str) -> None:
        """Take note of a model; the first one of a run adds nothing to names."""
        self._prefix(model)

    def name(self, series: Series, context: Mapping[str, Any]) -> str:
        """Return the name of a series.

        Args:
            series: The series.
            context: Its labels.

        Returns:
            The same for the same series, and for no other one of the run.
        """
        labels = tuple(sorted((key, str(value)) for key, value in context.items()))
        name = self._names.get((series, labels))
        if name is None:
            name = self._make(series, context)
            if name in self._taken:
                parts = {**series._asdict(), **context}
                name = series_name(name, {k: v for k, v in parts.items() if v})
            self._taken.add(name)
            self._names[series, labels] = name
        return name

    def _make(self, series: Series, context: Mapping[str, Any]) -> str:
        model, source, name, axis = series
        if list(context) == ["split"]:
            name = f"{context['split']}/{name}"
        elif context:
            name = series_name(name, context)
        home = "step" if source == SOURCE else "epoch"
        if axis in ("step", "epoch") and axis != home:
            name = f"{name}_{axis}"
        if source != SOURCE:
            name = f"{source}/{name}"
        return self._prefix(model) + name

    def _prefix(self, model: str) -> str:
        if not model or self._state.setdefault(_FIRST_MODEL, model) == model:
            return ""
        return f"{model}/"
