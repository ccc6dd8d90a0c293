"""Files of a run: their fingerprints, and models saved by their own framework."""

from __future__ import annotations

import hashlib
import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from drytrack.core._names import encode_file_name
from drytrack.core.exceptions import ArtifactError

Save = Callable[[pathlib.Path], object]


class Format(NamedTuple):
    """How a model is saved.

    Attributes:
        name: What is in the file, such as ``torch state_dict``.
        file_name: The file, or the folder where the framework writes one.
        save: Writes it.
    """

    name: str
    file_name: str
    save: Save


def fingerprint(path: pathlib.Path) -> dict[str, Any]:
    """Return what tells whether a file or folder is the same one later.

    Args:
        path: The file or folder.

    Returns:
        ``sha256``, ``bytes``, and ``files`` for a folder. The digest of a folder
        is of the names and digests of its files, sorted by name.

    Raises:
        ArtifactError: If it does not exist, cannot be read, or is being written.
    """
    if path.is_dir():
        digest = hashlib.sha256()
        size = files = 0
        for file in sorted(path.rglob("*")):
            if not file.is_file():
                continue
            sha256, length = _hash_file(file)
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256}\n".encode())
            size += length
            files += 1
        return {"sha256": digest.hexdigest(), "bytes": size, "files": files}
    if not path.exists():
        msg = (
            f"artifact {str(path)!r} does not exist (in {pathlib.Path.cwd()}). Save it "
            f"before it is logged, or pass its full path."
        )
        raise ArtifactError(msg)
    sha256, size = _hash_file(path)
    return {"sha256": sha256, "bytes": size}


def _hash_file(path: pathlib.Path) -> tuple[str, int]:
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            after = os.fstat(file.fileno())
    except OSError as err:
        msg = f"artifact {str(path)!r} cannot be read: {err}. Pass a readable file."
        raise ArtifactError(msg) from err
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        msg = (
            f"artifact {str(path)!r} is being written: it went from {before.st_size} "
            f"to {after.st_size} bytes while it was read. Log it when it is complete."
        )
        raise ArtifactError(msg)
    return digest, before.st_size


def next_version(base: pathlib.Path, name: str) -> tuple[pathlib.Path, int]:
    """Create the folder for the next version of a model.

    Args:
        base: The folder for the models of a run.
        name: The model's name.

    Returns:
        The folder, which nobody else has, and the version, from 1.
    """
    family = base / encode_file_name(name)
    family.mkdir(parents=True, exist_ok=True)
    known = [int(p.name[1:]) for p in family.glob("v*") if p.name[1:].isdecimal()]
    version = max(known, default=0) + 1
    while True:
        folder = family / f"v{version}"
        try:
            folder.mkdir()
        except FileExistsError:
            version += 1
        else:
            return folder, version


def find_format(model: Any) -> Format:
    """Find how a model's own framework saves it; none is imported.

    Args:
        model: A torch module or a mapping of tensors; a model of Keras, Hugging
            Face, XGBoost, LightGBM, CatBoost or scikit-learn; or a nested mapping
            of arrays.

    Raises:
        ArtifactError: If it is none of these.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        if isinstance(model, torch.nn.Module) and not hasattr(model, "save_pretrained"):
            module = getattr(model, "_orig_mod", model)  # of torch.compile
            return _torch_format(torch, module.state_dict())
        if isinstance(model, Mapping) and any(
            isinstance(value, torch.Tensor) for value in model.values()
        ):
            return _torch_format(torch, model)
    if hasattr(model, "save_pretrained"):
        return Format("save_pretrained", "pretrained", model.save_pretrained)
    packages = {cls.__module__.partition(".")[0] for cls in type(model).__mro__}
    if packages & {"keras", "tensorflow", "tf_keras"} and hasattr(model, "save"):
        return Format("keras", "model.keras", model.save)
    for package, suffix in _SAVE_MODEL.items():
        if package in packages:
            booster = getattr(model, "booster_", model)  # of LightGBM's estimators
            return Format(package, f"model{suffix}", _as_text(booster.save_model))
    joblib = sys.modules.get("joblib")  # comes with scikit-learn
    if "sklearn" in packages and joblib is not None:
        return Format("joblib", "model.joblib", lambda path: joblib.dump(model, path))
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(model, Mapping) and model:
        arrays = _flatten_arrays(model)
        if arrays:
            return Format(
                "numpy", "model.npz", lambda path: numpy.savez(path, **arrays)
            )
    msg = (
        f"nothing is known of how to save a {type(model).__module__}."
        f"{type(model).__qualname__}. Save it yourself, and pass the path: "
        f"run.log_model(path, name)."
    )
    raise ArtifactError(msg)


_SAVE_MODEL = {"xgboost": ".ubj", "lightgbm": ".txt", "catboost": ".cbm"}


def _torch_format(torch: Any, state: Any) -> Format:
    return Format("torch state_dict", "model.pt", lambda path: torch.save(state, path))


def _as_text(save: Callable[[str], object]) -> Save:
    return lambda path: save(str(path))


def _flatten_arrays(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return the arrays of a nested mapping by path; empty if it holds others."""
    arrays: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            inner = _flatten_arrays(value, f"{name}/")
            if value and not inner:
                return {}
            arrays.update(inner)
        elif hasattr(value, "__array__"):
            arrays[name] = value
        else:
            return {}
    return arrays
