"""How plots look, whatever draws them: colors, sizes, short names."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from drytrack.core.exceptions import ConfigurationError

Theme = Literal["light", "dark"]


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """The colors of a theme.

    Attributes:
        paper: The background.
        ink: Text.
        faint: Axes and marks.
        grid: The lines behind the curves.
        palette: Colors of the curves, in order.
        ramp: Ends of a sequence of colors, from old to new.
    """

    paper: str
    ink: str
    faint: str
    grid: str
    palette: tuple[str, ...]
    ramp: tuple[str, str]


# Okabe and Ito, "Color Universal Design", 2002 (jfly.uni-koeln.de/color); their
# yellow is left out on white, and their black on dark. Those with the most
# contrast to the background come first.
LOOKS: dict[str, Look] = {
    "light": Look(
        paper="#ffffff",
        ink="#1b1f24",
        faint="#6b7280",
        grid="#e4e7eb",
        palette=(
            "#0072b2",
            "#d55e00",
            "#009e73",
            "#cc79a7",
            "#000000",
            "#e69f00",
            "#56b4e9",
        ),
        ramp=("#c6dcec", "#0072b2"),
    ),
    "dark": Look(
        paper="#14171c",
        ink="#e8eaed",
        faint="#9aa3af",
        grid="#2a2f37",
        palette=(
            "#56b4e9",
            "#e69f00",
            "#009e73",
            "#cc79a7",
            "#f0e442",
            "#d55e00",
            "#ffffff",
        ),
        ramp=("#2b4657", "#56b4e9"),
    ),
}

N_DASHES = 4
"""Kinds of lines: when the colors begin again, the next kind tells them apart."""

MARK_NAMES = {"nan": "NaN", "inf": "+inf", "-inf": "-inf", "<= 0": "≤ 0 (log scale)"}


def find_look(theme: str) -> Look:
    """Return the colors of a theme.

    Raises:
        ConfigurationError: If there is no such theme.
    """
    if theme not in LOOKS:
        known = ", ".join(map(repr, LOOKS))
        msg = f"There is no theme {theme!r}. Pass one of {known}."
        raise ConfigurationError(msg)
    return LOOKS[theme]


def grid_shape(count: int) -> tuple[int, int]:
    """Return rows and columns for a number of panels; at most six columns."""
    columns = min(math.ceil(math.sqrt(max(count, 1))), 6)
    return math.ceil(max(count, 1) / columns), columns


def shorten(text: str, width: int) -> str:
    """Return a text of at most ``width`` characters, cut in its middle."""
    if len(text) <= width:
        return text
    tail = width // 3
    return f"{text[: width - tail - 1]}…{text[len(text) - tail :]}"


def say_step(value: float) -> str:
    """Return a step for an axis: 12000 as 12k, and 2500000 as 2.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(size, 1e4):
            return f"{value / size:.5g}{letter}"
    return f"{value:.5g}"
