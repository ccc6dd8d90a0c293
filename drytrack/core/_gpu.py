"""Which graphics cards there are, without a framework and without waking them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from drytrack.core._command import CommandTimeoutError, run_bounded

__all__ = ["describe_gpus"]

NVIDIA_SMI_TIMEOUT_S: Final = 2.0
MAX_SMI_BYTES: Final = 65_536

_VISIBILITY: Final = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
)
_NVIDIA_DRIVER: Final = Path("/proc/driver/nvidia")
_SMI_FIELDS: Final = ("index", "name", "memory_mib", "driver", "uuid")
_SMI_QUERY: Final = "index,name,memory.total,driver_version,uuid"


def describe_gpus() -> dict[str, object]:
    """Describe the graphics cards, without touching them.

    Returns:
        Plain data: ``visible`` (the variables that choose among the cards),
        ``driver`` (None without NVIDIA's), ``devices`` (from nvidia-smi, else the
        names that the driver tells) and ``torch`` (None where it is not imported;
        otherwise the CUDA or ROCm version that it was built for and, once CUDA
        is initialised, the names of its ``devices``).
    """
    return {
        "visible": {
            name: os.environ[name] for name in _VISIBILITY if name in os.environ
        },
        "driver": _kernel_driver(),
        "devices": _smi_devices() or _kernel_devices(),
        "torch": _torch_devices(),
    }


def _kernel_driver() -> str | None:
    try:
        text = (_NVIDIA_DRIVER / "version").read_text(encoding="utf-8")
    except OSError:
        return None
    return text.partition("\n")[0].strip() or None


def _kernel_devices() -> list[dict[str, str]]:
    devices = []
    for path in sorted(_NVIDIA_DRIVER.glob("gpus/*/information")):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == "Model":
                devices.append({"name": value.strip()})
    return devices


def _smi_devices() -> list[dict[str, str]]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={_SMI_QUERY}", "--format=csv,noheader,nounits"]
    try:
        answer = run_bounded(
            command, timeout_s=NVIDIA_SMI_TIMEOUT_S, limit_bytes=MAX_SMI_BYTES
        )
    except (CommandTimeoutError, OSError):
        # A hung driver is known to hang whoever asks it.
        return []
    if answer.code != 0:
        return []
    rows = (line.split(", ") for line in answer.text.splitlines())
    return [
        dict(zip(_SMI_FIELDS, row, strict=True))
        for row in rows
        if len(row) == len(_SMI_FIELDS)
    ]


def _torch_devices() -> dict[str, object] | None:
    # Any: torch is looked up, never imported, so that there is no type to name.
    torch: Any = sys.modules.get("torch")
    version = getattr(torch, "version", None)
    if version is None:
        return None
    found: dict[str, object] = {
        "cuda": getattr(version, "cuda", None),
        "hip": getattr(version, "hip", None),
    }
    cuda = getattr(torch, "cuda", None)
    # Asking before would create a CUDA context in this process, after which a
    # forked data loader can no longer use the device.
    if cuda is not None and cuda.is_initialized():
        found["devices"] = [
            cuda.get_device_name(index) for index in range(cuda.device_count())
        ]
    return found
