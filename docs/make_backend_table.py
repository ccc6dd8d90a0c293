"""Write the table of docs/backends.md: python docs/make_backend_table.py.

What a backend supports is what its class overrides.
"""

from __future__ import annotations

import importlib
import pathlib
import pkgutil

import drytrack.trackers
from drytrack.trackers.base import Backend

PAGE = pathlib.Path(__file__).resolve().with_name("backends.md")
BEGIN, END = "<!-- the table begins -->", "<!-- the table ends -->"

FEATURES = {
    "log_params": "configuration",
    "log_summary": "summary",
    "log_histogram": "histograms",
    "log_image": "images, figures",
    "log_text": "texts",
    "log_table": "tables",
    "log_artifact": "artifacts",
    "log_model": "models apart",
    "watch": "watches models",
    "launch_dashboard": "page of its own",
    "native": "native object",
    "last_seq": "nothing twice",
}
"""Method of `Backend` → the column that it stands for."""


def find_backends() -> list[type[Backend]]:
    """Return the classes of the public tracker modules that drive another tool."""
    found = []
    for module in pkgutil.iter_modules(drytrack.trackers.__path__):
        if module.name.startswith("_"):
            continue
        members = vars(importlib.import_module(f"drytrack.trackers.{module.name}"))
        found += [
            member
            for name, member in members.items()
            if isinstance(member, type)
            and issubclass(member, Backend)
            and member.__module__.endswith(f".{module.name}")
            and not name.startswith("_")
        ]
    return sorted(found, key=lambda cls: cls.__name__.lower())


def supports(backend: type[Backend], method: str) -> bool:
    """Return whether a class does more than the base does."""
    return getattr(backend, method) is not getattr(Backend, method)


def make_table() -> str:
    """Return the table as Markdown: a row for each feature."""
    backends = find_backends()
    rows = [
        ["", *(f"`{backend.__name__}`" for backend in backends)],
        ["---", *(":-:" for _ in backends)],
        ["metrics", *("yes" for _ in backends)],
    ]
    rows += [
        [title, *("yes" if supports(cls, method) else "" for cls in backends)]
        for method, title in FEATURES.items()
        if any(supports(cls, method) for cls in backends)
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def fill(page: str) -> str:
    """Return a page with the table between its two marks."""
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n\n{make_table()}\n\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{PAGE} is up to date.")
