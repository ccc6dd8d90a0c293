"""Time functions side by side, so that a noisy machine is noisy for all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def interleave(
    functions: dict[str, Callable[[], object]], rounds: int = 25, number: int = 1_000
) -> dict[str, float]:
    """Time functions in turns.

    Args:
        functions: Name → what to call; the order changes with every round.
        rounds: How many rounds count; one more warms up.
        number: Calls of each in a round.

    Returns:
        Name → median of its rounds, in seconds for one call.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for _ in range(rounds + 1):
        for name in names:
            function = functions[name]
            began = time.perf_counter()
            for _ in range(number):
                function()
            times[name].append((time.perf_counter() - began) / number)
        names.append(names.pop(0))
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def print_table(medians: dict[str, float], yardstick: str) -> None:
    """Print medians in µs, and as multiples of one of them."""
    for name, median in medians.items():
        ratio = median / medians[yardstick]
        print(f"{name:<48} {median * 1e6:9.2f} µs {ratio:7.2f} x")
