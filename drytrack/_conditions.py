"""Which runs a query means: conditions on parameters and metrics."""

from __future__ import annotations

import dataclasses
import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from drytrack.core.exceptions import ConfigurationError

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
    "in": lambda value, group: value in group,
}
STATISTICS = ("first", "last", "min", "max", "mean", "count", "best")

_TEXT_FORM = re.compile(r"(.+?)\s*(<=|>=|==|!=|=|<|>)\s*(.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Query:
    """Which runs are wanted; what is None or empty leaves them all.

    Attributes:
        experiment: Name of the experiment.
        tags: Labels that a run must have, all of them.
        statuses: One of them must be the run's.
        params: Flattened parameter → condition.
        metrics: Metric, or ``metric.min`` and the like → condition.
    """

    experiment: str | None = None
    tags: Sequence[str] = ()
    statuses: Sequence[str] = ()
    params: Mapping[str, object] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a condition that nothing could meet."""
        for condition in (*self.params.values(), *self.metrics.values()):
            split(condition)


def split(condition: object) -> tuple[str, Any]:
    """Return operator and value of a condition.

    Args:
        condition: ``("<", 0.01)``, or a value, which means equality.

    Raises:
        ConfigurationError: If there is no such operator.
    """
    if isinstance(condition, tuple) and len(condition) == 2:
        symbol, value = condition
        if symbol not in OPERATORS:
            known = ", ".join(map(repr, OPERATORS))
            msg = f"There is no comparison {symbol!r}. Pass one of {known}."
            raise ConfigurationError(msg)
        return symbol, value
    return "==", condition


def meets(value: object, condition: object) -> bool:
    """Return whether a value meets a condition; one of another type does not."""
    symbol, wanted = split(condition)
    try:
        return bool(OPERATORS[symbol](value, wanted))
    except TypeError:
        return False


def parse_condition(text: str) -> tuple[str, tuple[str, Any]]:
    """Read a condition as typed on a command line: ``lr<=0.01``.

    Args:
        text: Name, comparison and value; the value is JSON, or else text.

    Returns:
        The name, and the pair for `Query`.

    Raises:
        ConfigurationError: If there is no comparison in it.
    """
    found = _TEXT_FORM.fullmatch(text.strip())
    if found is None:
        msg = (
            f"{text!r} is no condition. Write one like 'lr<=0.01' or 'optimizer=adam'."
        )
        raise ConfigurationError(msg)
    name, symbol, value = found.groups()
    try:
        wanted = json.loads(value)
    except ValueError:
        wanted = value
    return name, ("==" if symbol == "=" else symbol, wanted)


def name_statistic(name: str, known: Callable[[str], bool]) -> tuple[str, str]:
    """Return the metric and the statistic that a name like ``loss.min`` means.

    Args:
        name: The metric, alone or with a statistic behind a dot.
        known: Tells whether there is a metric of that name.
    """
    metric, dot, statistic = name.rpartition(".")
    if dot and statistic in STATISTICS and not known(name):
        return metric, statistic
    return name, "last"
