"""Where a run runs: what its record keeps so that it can be understood later.

Two halves: `quick_environment` costs little enough for the start of a run;
`slow_environment` starts programs and reads many files, and belongs on a worker
thread. Both return plain data with secrets masked, and neither ever raises: what
cannot be found is None, and a part that fails says so in its place. User names
and the environment as a whole are left out on purpose.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Final

from drytrack.core._process import this_process
from drytrack.core._rank import find_rank
from drytrack.core._secrets import mask_command_line, mask_text

__all__ = ["quick_environment", "slow_environment"]

# Only what is imported already is looked at, so that the list may be long.
_WELL_KNOWN: Final = (
    "accelerate",
    "catboost",
    "datasets",
    "diffusers",
    "fastai",
    "flax",
    "gymnasium",
    "hydra",
    "ignite",
    "jax",
    "jaxlib",
    "keras",
    "lightgbm",
    "lightning",
    "matplotlib",
    "numpy",
    "omegaconf",
    "pandas",
    "polars",
    "pytorch_lightning",
    "scipy",
    "sklearn",
    "tensorflow",
    "torch",
    "torchaudio",
    "torchvision",
    "transformers",
    "xgboost",
)
# What a scheduler tells its jobs; the first variable says that it is this one.
_SCHEDULERS: Final = {
    "slurm": {
        "job_id": "SLURM_JOB_ID",
        "job_name": "SLURM_JOB_NAME",
        "array_job_id": "SLURM_ARRAY_JOB_ID",
        "array_task_id": "SLURM_ARRAY_TASK_ID",
        "step_id": "SLURM_STEP_ID",
        "restart_count": "SLURM_RESTART_COUNT",
        "cluster": "SLURM_CLUSTER_NAME",
        "queue": "SLURM_JOB_PARTITION",
        "nodes": "SLURM_JOB_NODELIST",
    },
    "pbs": {
        "job_id": "PBS_JOBID",
        "job_name": "PBS_JOBNAME",
        "array_task_id": "PBS_ARRAY_INDEX",
        "queue": "PBS_QUEUE",
    },
    "lsf": {
        "job_id": "LSB_JOBID",
        "job_name": "LSB_JOBNAME",
        "array_task_id": "LSB_JOBINDEX",
        "queue": "LSB_QUEUE",
        "nodes": "LSB_HOSTS",
    },
    "oar": {
        "job_id": "OAR_JOB_ID",
        "job_name": "OAR_JOB_NAME",
        "array_task_id": "OAR_ARRAY_INDEX",
    },
    "flux": {"job_id": "FLUX_JOB_ID"},
    # Last, since its variables have the most common names.
    "sge": {
        "root": "SGE_ROOT",
        "job_id": "JOB_ID",
        "job_name": "JOB_NAME",
        "array_task_id": "SGE_TASK_ID",
        "restart_count": "RESTARTED",
        "queue": "QUEUE",
    },
}


def quick_environment() -> dict[str, object]:
    """Describe this process and its machine, within a few milliseconds.

    Returns:
        Plain data by topic: ``host``, ``platform``, ``python``,
        ``command_line``, ``working_directory``, ``script``, ``notebook``,
        ``process``, ``rank``, ``scheduler``, ``cpus``, ``memory_bytes``
        and ``imported`` (versions of well-known packages).
    """
    return _collect(
        {
            "host": _host,
            "platform": _platform,
            "python": _python,
            "command_line": _command_line,
            "working_directory": os.getcwd,
            "script": _script,
            "notebook": _in_notebook,
            "process": lambda: this_process().to_dict(),
            "rank": _rank,
            "scheduler": _scheduler,
            "cpus": _cpus,
            "memory_bytes": _memory_bytes,
            "imported": _imported_versions,
        }
    )


def slow_environment(cwd: Path) -> dict[str, object]:
    """Describe code, packages and graphics cards; may take seconds.

    Args:
        cwd: The folder whose git work tree is described.

    Returns:
        Plain data: ``git`` (see `describe_repository`; None outside a
        repository), ``packages`` (version of each installed distribution),
        ``drytrack`` (its own version) and ``gpu`` (see `describe_gpus`).
    """

    def describe_code() -> object:
        from drytrack.core._git import describe_repository

        return describe_repository(cwd)

    def describe_cards() -> object:
        from drytrack.core._gpu import describe_gpus

        return describe_gpus()

    return _collect(
        {
            "git": describe_code,
            "packages": _installed,
            # Here and not in the quick half: installed versions are read with
            # importlib.metadata, whose import alone takes tens of milliseconds.
            "drytrack": _own_version,
            "gpu": describe_cards,
        }
    )


def _collect(parts: Mapping[str, Callable[[], object]]) -> dict[str, object]:
    collected: dict[str, object] = {}
    for name, describe in parts.items():
        try:
            collected[name] = _storable(describe())
        except Exception as err:  # noqa: BLE001  # asks foreign code; not worth a run
            reason = mask_text(f"{type(err).__name__}: {err}")
            collected[name] = {"error": _storable(reason)}
    return collected


def _storable(value: object) -> object:
    # Names that are no valid Unicode arrive as lone surrogates, which JSON encoders
    # refuse.
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, Mapping):
        return {_storable(key): _storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return value


def _host() -> str:
    return this_process().host


def _platform() -> dict[str, str]:
    # Not platform.platform(), which reads the interpreter's binary, and on Windows
    # asks a service that may take seconds.
    if sys.platform == "win32":
        version = sys.getwindowsversion()
        return {
            "system": "Windows",
            "release": f"{version.major}.{version.minor}.{version.build}",
            "machine": os.environ.get("PROCESSOR_ARCHITECTURE", ""),
        }
    names = os.uname()
    return {
        "system": names.sysname,
        "release": names.release,
        "machine": names.machine,
    }


def _python() -> dict[str, str]:
    return {
        "version": ".".join(map(str, sys.version_info[:3])),
        "build": sys.version,
        "implementation": sys.implementation.name,
        "executable": sys.executable,
    }


def _command_line() -> list[str]:
    # What was typed, with the interpreter's options; sys.argv lacks those and may
    # have been changed since.
    return mask_command_line(sys.orig_argv or sys.argv)


def _script() -> str | None:
    main = sys.modules.get("__main__")
    for name in ("__file__", "__vsc_ipynb_file__"):
        path = getattr(main, name, None)
        # In angle brackets: typed in, or read from a pipe.
        if isinstance(path, str) and not path.startswith("<"):
            return str(Path(path).absolute())
    # Set by Jupyter Server for the kernel of a notebook.
    return os.environ.get("JPY_SESSION_NAME") or None


def _in_notebook() -> bool:
    # IPython in a terminal has a shell too, but no kernel.
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython is not None and hasattr(get_ipython(), "kernel")


def _rank() -> dict[str, object]:
    rank = find_rank()
    return {
        "rank": rank.rank,
        "world_size": rank.world_size,
        "local_rank": rank.local_rank,
        "source": rank.source,
    }


def _scheduler() -> dict[str, str] | None:
    for name, variables in _SCHEDULERS.items():
        if not os.environ.get(next(iter(variables.values()))):
            continue
        found = {key: os.environ.get(item, "") for key, item in variables.items()}
        if not found["job_id"]:
            continue
        return {"name": name} | {key: value for key, value in found.items() if value}
    return None


def _cpus() -> dict[str, int | None]:
    count = os.cpu_count()
    # A scheduler or a container may grant fewer than there are.
    if sys.platform == "linux":
        return {"count": count, "usable": len(os.sched_getaffinity(0))}
    return {"count": count, "usable": count}


if sys.platform == "win32":

    def _memory_bytes() -> int | None:
        import ctypes

        class MemoryStatus(ctypes.Structure):
            _fields_ = (
                ("dwLength", ctypes.c_ulong),
                ("dwMemoryLoad", ctypes.c_ulong),
                ("ullTotalPhys", ctypes.c_ulonglong),
                ("ullAvailPhys", ctypes.c_ulonglong),
                ("ullTotalPageFile", ctypes.c_ulonglong),
                ("ullAvailPageFile", ctypes.c_ulonglong),
                ("ullTotalVirtual", ctypes.c_ulonglong),
                ("ullAvailVirtual", ctypes.c_ulonglong),
                ("ullAvailExtendedVirtual", ctypes.c_ulonglong),
            )

        status = MemoryStatus(dwLength=ctypes.sizeof(MemoryStatus))
        kernel32 = ctypes.WinDLL("kernel32")
        if not kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            return None
        return int(status.ullTotalPhys)

else:

    def _memory_bytes() -> int | None:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _imported_versions() -> dict[str, str]:
    versions = {}
    for name in _WELL_KNOWN:
        # From the namespace itself: a module's own __getattr__ may import more.
        version = vars(sys.modules.get(name, _NO_MODULE)).get("__version__")
        if isinstance(version, str):
            versions[name] = str(version)
    return versions


_NO_MODULE: Final = ModuleType("no_module")


def _own_version() -> str | None:
    import drytrack

    try:
        version = getattr(drytrack, "__version__", None)
    except ImportError:
        # Run from a source tree that is not installed.
        return None
    return version if isinstance(version, str) else None


def _installed() -> dict[str, str]:
    from importlib.metadata import distributions

    versions: dict[str, str] = {}
    for distribution in distributions():
        # Only the head is parsed: with the e-mail parser behind `.metadata` this
        # held the interpreter lock fifteen times as long.
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO")
        head = (text or "").partition("\n\n")[0]
        fields = dict(_metadata_fields(head))
        name, version = fields.get("name"), fields.get("version")
        if name and version:
            # An import takes the first one on the path.
            versions.setdefault(name, version)
    return dict(sorted(versions.items(), key=lambda item: item[0].lower()))


def _metadata_fields(head: str) -> Iterator[tuple[str, str]]:
    for line in head.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.lower() in ("name", "version"):
            yield key.lower(), value.strip()
