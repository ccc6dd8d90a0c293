"""Identity of a process, and whether it still lives.

A process id alone says little: it is reused, it means nothing on another machine
or in another container, and after a restart it names somebody else. A
`ProcessId` carries what tells these cases apart, and `is_alive` says that it
cannot know rather than guess.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["ProcessId", "is_alive", "this_process"]

LARGEST_PID = 2**32 - 1  # Windows keeps process ids in an unsigned 32-bit field.
INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO in Linux's proc_ns.h.
PS_TIMEOUT_S = 2.0

_PROC = Path("/proc")
_CONTAINER_MARKS = (
    Path("/.dockerenv"),
    Path("/run/.containerenv"),
    Path("/run/systemd/container"),
)
_MACHINE_ID_FILES = (
    Path("/etc/machine-id"),
    Path("/var/lib/dbus/machine-id"),
    Path("/etc/hostid"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class ProcessId:
    """What identifies one process among all machines that share a folder.

    Args:
        pid: Process id, as the process itself sees it.
        started_at: Token for the moment of the start, comparable for equality on
            one machine only; None when unknown.
        boot_id: Identifies the machine's running kernel; None when unknown.
        host: Host name; not unique among containers.
        machine_id: Identifies the installed system across restarts; None when
            unknown, and in a container, whose image may run anywhere.
        pid_namespace: The set of processes in which ``pid`` is unique; None where
            the operating system has only one.

    Raises:
        ValueError: If ``pid`` is no possible process id.
    """

    pid: int
    started_at: str | None
    boot_id: str | None
    host: str
    machine_id: str | None = None
    pid_namespace: str | None = None

    def __post_init__(self) -> None:
        # 0 and negative ids address process groups: never look one of them up.
        if not 0 < self.pid <= LARGEST_PID:
            raise ValueError(
                f"process id must be between 1 and {LARGEST_PID}, got {self.pid}. "
                f"Pass the id of one process."
            )

    def to_dict(self) -> dict[str, int | str | None]:
        """Return the fields as plain data, for a record."""
        return {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self)
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> ProcessId:
        """Read back what `to_dict` gave, also from a newer or an older version.

        Args:
            data: Fields by name. Unknown ones are ignored; those that may be
                unknown may be missing.

        Returns:
            The process that the fields describe.

        Raises:
            ValueError: If ``pid`` or ``host`` is missing or a field is of the
                wrong type.
        """
        pid = data.get("pid")
        if isinstance(pid, bool) or not isinstance(pid, int):
            raise _wrong_field("pid", "an int", pid)
        host = data.get("host")
        if not isinstance(host, str):
            raise _wrong_field("host", "a str", host)
        return cls(
            pid=pid,
            started_at=_text_or_none(data, "started_at"),
            boot_id=_text_or_none(data, "boot_id"),
            host=host,
            machine_id=_text_or_none(data, "machine_id"),
            pid_namespace=_text_or_none(data, "pid_namespace"),
        )


def this_process() -> ProcessId:
    """Identify the calling process; correct in a forked child too."""
    here = _locate()
    return ProcessId(
        pid=os.getpid(),
        started_at=_own_start(),
        boot_id=here.boot_id,
        host=here.host,
        machine_id=here.machine_id,
        pid_namespace=here.pid_namespace,
    )


def is_alive(process: ProcessId) -> bool | None:
    """Tell whether a process still runs.

    Args:
        process: The process, as it identified itself.

    Returns:
        True if it runs. False if it has ended, its id now belongs to another
        process, it is a zombie, or its machine has been restarted. None if that
        cannot be known from here: another machine, another container, or a start
        time that cannot be compared.
    """
    here = _locate()
    if here.boot_id is not None and here.boot_id == process.boot_id:
        same_machine = here.host == process.host or _same_system(here, process)
        # A container sees its own processes only, under numbers of its own.
        if not same_machine or here.pid_namespace != process.pid_namespace:
            return None
    elif here.host != process.host or not _same_system(here, process):
        return None
    elif here.boot_id is not None and process.boot_id is not None:
        return False  # The same system under another boot: it was restarted.
    elif here.boot_id != process.boot_id:
        return None
    found = _look_up(process.pid)
    if found is None or found.zombie:
        return False
    if found.started_at is None or process.started_at is None:
        return None
    return found.started_at == process.started_at


class _Location(NamedTuple):
    boot_id: str | None
    host: str
    machine_id: str | None
    pid_namespace: str | None


class _Found(NamedTuple):
    started_at: str | None
    zombie: bool


def _same_system(here: _Location, process: ProcessId) -> bool:
    return here.machine_id is not None and here.machine_id == process.machine_id


def _wrong_field(name: str, expected: str, value: object) -> ValueError:
    return ValueError(
        f"process field {name!r} must be {expected}, got {type(value).__name__}. "
        f"Pass what ProcessId.to_dict() returned."
    )


def _text_or_none(data: Mapping[str, object], name: str) -> str | None:
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise _wrong_field(name, "a str or None", value)
    return value


def _first_line(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return text.strip().partition("\n")[0] or None


if sys.platform == "win32":
    import ctypes
    import platform
    import winreg
    from ctypes import wintypes

    PROCESS_QUERY_LIMITED_INFORMATION = 0x1000
    ERROR_INVALID_PARAMETER = 87  # What OpenProcess reports for an id without owner.
    STILL_ACTIVE = 259

    def _kernel32() -> ctypes.WinDLL:
        # An instance of our own: argtypes set on ctypes.windll hold for everybody.
        kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
        filetime = ctypes.POINTER(wintypes.FILETIME)
        kernel32.OpenProcess.restype = wintypes.HANDLE
        kernel32.OpenProcess.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
        kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)
        kernel32.GetProcessTimes.argtypes = (wintypes.HANDLE, *[filetime] * 4)
        kernel32.GetExitCodeProcess.argtypes = (
            wintypes.HANDLE,
            ctypes.POINTER(wintypes.DWORD),
        )
        return kernel32

    def _look_up(pid: int) -> _Found | None:
        # Not os.kill(pid, 0): on Windows that interrupts the process.
        kernel32 = _kernel32()
        handle = kernel32.OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, False, pid)
        if not handle:
            if ctypes.get_last_error() == ERROR_INVALID_PARAMETER:
                return None
            return _Found(started_at=None, zombie=False)
        try:
            exit_code = wintypes.DWORD()
            kernel32.GetExitCodeProcess(handle, ctypes.byref(exit_code))
            if exit_code.value != STILL_ACTIVE:
                # Ended, but somebody still holds a handle.
                return _Found(started_at=None, zombie=True)
            times = [wintypes.FILETIME() for _ in range(4)]
            if not kernel32.GetProcessTimes(handle, *map(ctypes.byref, times)):
                return _Found(started_at=None, zombie=False)
            created = times[0]
            ticks = (created.dwHighDateTime << 32) | created.dwLowDateTime
            return _Found(started_at=str(ticks), zombie=False)
        finally:
            kernel32.CloseHandle(handle)

    def _own_start() -> str | None:
        found = _look_up(os.getpid())
        return None if found is None else found.started_at

    def _locate() -> _Location:
        try:
            with winreg.OpenKey(
                winreg.HKEY_LOCAL_MACHINE, r"SOFTWARE\Microsoft\Cryptography"
            ) as key:
                machine_id = str(winreg.QueryValueEx(key, "MachineGuid")[0])
        except OSError:
            machine_id = None
        # No boot id: creation times are absolute and tell restarts apart as well.
        return _Location(None, platform.node(), machine_id, None)

else:

    def _look_up(pid: int) -> _Found | None:
        if sys.platform == "linux":
            found = _look_up_in_proc(pid)
        else:
            found = _look_up_with_ps(pid)
        if found is not None:
            return found
        # /proc may hide other users' processes (mount option hidepid).
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return None
        except OSError:
            pass
        return _Found(started_at=None, zombie=False)

    def _own_start() -> str | None:
        if sys.platform == "linux":
            found = _read_stat(_PROC / "self" / "stat")
        else:
            found = _look_up_with_ps(os.getpid())
        return None if found is None else found.started_at

    def _locate() -> _Location:
        host = os.uname().nodename
        if sys.platform == "darwin":
            return _Location(_boot_of_mac(), host, _id_of_mac(), None)
        try:
            namespace = str((_PROC / "self" / "ns" / "pid").readlink())
        except OSError:
            namespace = None
        boot_id = _first_line(_PROC / "sys" / "kernel" / "random" / "boot_id")
        in_container = namespace not in (None, INITIAL_PID_NAMESPACE) or any(
            mark.exists() for mark in _CONTAINER_MARKS
        )
        machine_id = None
        if not in_container:
            candidates = map(_first_line, _MACHINE_ID_FILES)
            machine_id = next((found for found in candidates if found), None)
        return _Location(boot_id, host, machine_id, namespace)


def _look_up_in_proc(pid: int) -> _Found | None:
    try:
        # After `unshare --pid`, /proc can still number the parent's processes.
        if str((_PROC / "self").readlink()) != str(os.getpid()):
            return None
    except OSError:
        return None
    return _read_stat(_PROC / str(pid) / "stat")


def _read_stat(path: Path) -> _Found | None:
    try:
        stat = path.read_bytes()
    except OSError:
        return None
    # The second field, the program's name, may hold spaces and parentheses.
    fields = stat.rpartition(b")")[2].split()
    # Fields 3 and 22 of proc(5): state, and start in clock ticks after the boot,
    # which unlike a time of day does not move when the clock is set.
    return _Found(started_at=fields[19].decode(), zombie=fields[0] in (b"Z", b"X"))


def _look_up_with_ps(pid: int) -> _Found | None:
    import subprocess

    # The same token for every reader, whatever its language and time zone.
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    try:
        answer = subprocess.run(  # noqa: S603  # a fixed command and a number
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env=environment,
            timeout=PS_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    state, _, started = answer.stdout.decode("ascii", "replace").strip().partition(" ")
    if answer.returncode != 0 or not started:
        return None
    return _Found(
        started_at=" ".join(started.split()), zombie=state.startswith(("Z", "X"))
    )


def _boot_of_mac() -> str | None:
    import ctypes

    buffer = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(len(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    name = b"kern.bootsessionuuid"
    if libc.sysctlbyname(name, buffer, ctypes.byref(size), None, ctypes.c_size_t(0)):
        return None
    return buffer.value.decode("ascii", "replace") or None


def _id_of_mac() -> str | None:
    import ctypes
    import uuid

    class Timespec(ctypes.Structure):
        _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))

    buffer = (ctypes.c_ubyte * 16)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.gethostuuid(buffer, ctypes.byref(Timespec(1, 0))):
        return None
    return str(uuid.UUID(bytes=bytes(buffer)))
