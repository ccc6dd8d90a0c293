"""The models and actors of one run."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable
from typing import Any

from drytrack.core._names import check_name
from drytrack.core._plain import describe
from drytrack.core.exceptions import RegistrationError
from drytrack.core.log_events import ActorRegistrationEvent, ModelRegistrationEvent

MAX_REPR = 100_000
"""Characters kept of a model's ``repr``; a longer one is cut."""


@dataclasses.dataclass
class RegisteredModel:
    """A model as the run knows it.

    Attributes:
        name: Its name.
        timestamp: When it was registered, local time.
        model: The object.
        epoch: The epoch that it was last trained to or loaded from; 0 before.
    """

    name: str
    timestamp: datetime.datetime
    model: object
    epoch: int = 0


class Registry:
    """Names the models and actors of one run, and publishes their arrival."""

    def __init__(self, run_name: str) -> None:
        """Start empty.

        Args:
            run_name: For error messages.
        """
        self.run_name = run_name
        # Objects by identity: a model need not be hashable, nor equal to itself.
        self._models: dict[int, RegisteredModel] = {}
        self._actors: dict[tuple[int, str], tuple[str, object]] = {}

    def add_model(
        self, model: object, name: str | None, others: Iterable[Registry]
    ) -> RegisteredModel:
        """Register a model and publish its `ModelRegistrationEvent`.

        Args:
            model: Any object.
            name: Its name, by default its class name.
            others: The registries of the other active runs.

        Raises:
            RegistrationError: If the model or the name is registered already.
        """
        name = check_name(type(model).__name__ if name is None else name, "model name")
        known = self._models.get(id(model))
        if known is not None:
            msg = (
                f"This {type(model).__name__} is registered as {known.name!r} already. "
                f"Use it as it is, or call run.unregister_model(model) first."
            )
            raise RegistrationError(msg)
        for other in others:
            if id(model) in other._models:
                msg = (
                    f"This {type(model).__name__} is registered in run "
                    f"{other.run_name}. Unregister it there first, or copy the model."
                )
                raise RegistrationError(msg)
        if any(entry.name == name for entry in self._models.values()):
            msg = (
                f"Another model is registered as {name!r}. Give this one a name of "
                f"its own: run.register_model(model, name=…)."
            )
            raise RegistrationError(msg)
        entry = RegisteredModel(
            name, datetime.datetime.now(), model
        )  # local time, for people
        self._models[id(model)] = entry
        ModelRegistrationEvent(name, entry.timestamp, _architecture(model))
        return entry

    def remove_model(self, model: object) -> None:
        """Forget a model and its actors.

        Raises:
            RegistrationError: If it is not registered.
        """
        entry = self.find_model(model)
        del self._models[id(entry.model)]
        for key in [key for key in self._actors if key[1] == entry.name]:
            del self._actors[key]

    def find_model(self, model: object) -> RegisteredModel:
        """Return the entry of a model, given it or its name.

        Raises:
            RegistrationError: If it is not registered.
        """
        found = self._models.get(id(model))
        if found is None and isinstance(model, str):
            found = next((m for m in self._models.values() if m.name == model), None)
        if found is None:
            names = ", ".join(repr(m.name) for m in self._models.values()) or "none"
            what = repr(model) if isinstance(model, str) else type(model).__name__
            msg = (
                f"Model {what} is not registered in run {self.run_name} (registered: "
                f"{names}). Call run.register_model(model, name=…) first."
            )
            raise RegistrationError(msg)
        return found

    def add_actor(
        self, actor: object, model: object, name: str | None, metadata: Any
    ) -> str:
        """Register an actor for a model and publish its `ActorRegistrationEvent`.

        Raises:
            RegistrationError: If the model is unknown, or the actor or its name
                is registered for it already.
        """
        entry = self.find_model(model)
        if name is None:
            name = getattr(actor, "name", None)
        if not isinstance(name, str):
            name = type(actor).__name__
        name = check_name(name, "actor name")
        if (id(actor), entry.name) in self._actors:
            msg = (
                f"This {type(actor).__name__} is registered for model {entry.name!r} "
                f"already. Use it as it is, or call run.unregister_actor(actor) first."
            )
            raise RegistrationError(msg)
        for (_, model_name), (other, _) in self._actors.items():
            if (model_name, other) == (entry.name, name):
                msg = (
                    f"Another actor of model {entry.name!r} is named {name!r}. Give "
                    f"this one a name of its own, or unregister the other."
                )
                raise RegistrationError(msg)
        self._actors[id(actor), entry.name] = (name, actor)
        now = datetime.datetime.now()  # local time, for people
        described = describe(actor) if metadata is None else metadata
        ActorRegistrationEvent(name, now, entry.name, entry.timestamp, described)
        return name

    def remove_actor(self, actor: object) -> None:
        """Forget an actor, for all its models.

        Raises:
            RegistrationError: If it is not registered.
        """
        keys = [key for key in self._actors if key[0] == id(actor)]
        if not keys:
            msg = (
                f"This {type(actor).__name__} is not registered in run "
                f"{self.run_name}. Call run.register_actor(actor, model) first."
            )
            raise RegistrationError(msg)
        for key in keys:
            del self._actors[key]


def _architecture(model: object) -> str:
    if isinstance(model, str):
        return model
    try:
        text = repr(model)
    except Exception as err:  # noqa: BLE001  # any object's __repr__
        text = f"<{type(model).__name__}, whose repr raises {type(err).__name__}>"
    if len(text) > MAX_REPR:
        text = f"{text[:MAX_REPR]}… ({len(text)} characters)"
    return text.encode("utf-8", "replace").decode()
