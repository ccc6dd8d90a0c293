"""Where the plots of a run are written, below its folder."""

from __future__ import annotations

from drytrack.core._names import encode_file_name


class FileNames:
    """Gives each model a file name, also to those that differ in case alone."""

    def __init__(self) -> None:
        """Begin with no names taken."""
        self._taken: dict[str, str] = {}

    def of_model(self, model: str) -> str:
        """Return the path of a model's plot, without its suffix."""
        if not model:
            return "run"
        number, name = 1, encode_file_name(model, " " * 8)[:-8]
        while self._taken.setdefault(name.casefold(), model) != model:
            number += 1
            # No encoded name ends like this.
            name = f"{encode_file_name(model, ' ' * 12)[:-12]}%{number}"
        return f"models/{name}"
