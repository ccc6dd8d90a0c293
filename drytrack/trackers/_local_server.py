"""A tool's own web page, served to this machine alone until the run ends."""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from drytrack.core.exceptions import BackendError

HOST = "127.0.0.1"
PORTS_TO_TRY = 100
START_TIMEOUT_S = 60.0

_logger = logging.getLogger("drytrack")

# Ends with whoever holds the other end of standard input, also by a kill, and takes
# along what it has started: some servers are a process that starts another.
_WRAPPER = """
import os, subprocess, sys, threading
def leave_with_parent():
    while os.read(0, 1):
        pass
    if hasattr(os, "killpg"):
        os.killpg(0, 9)
    subprocess.run(["taskkill", "/F", "/T", "/PID", str(os.getpid())])
threading.Thread(target=leave_with_parent, daemon=True).start()
import runpy
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@contextlib.contextmanager
def serve(
    module: str,
    arguments: Callable[[int], Sequence[str]],
    port: int,
    *,
    mark: str = "",
) -> Iterator[str]:
    """Run a module of Python that serves a page, and stop it at the end.

    Args:
        module: The module, as for ``python -m``.
        arguments: Returns its arguments for a port; they must name `HOST`.
        port: Where to serve; the next free port is taken where it is in use.
        mark: What the server answers at this very path, so that no other one can
            be taken for it that was quicker to take the port.

    Yields:
        The address of the page, which answers.

    Raises:
        BackendError: If no port is free, or the server does not come up.
    """
    tried = 0
    while True:
        found = _free_port(port + tried, PORTS_TO_TRY - tried)
        tried = found - port + 1
        process = subprocess.Popen(  # noqa: S603  # this interpreter, our module
            [sys.executable, "-c", _WRAPPER, module, *arguments(found)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a group of its own, which Ctrl-C spares
        )
        try:
            if _wait_until_up(process, found, mark):
                yield f"http://{HOST}:{found}/"
                return
            code = process.poll()
        finally:
            _end(process)
        # Someone else may have taken the port in between.
        if _can_bind(found) or tried >= PORTS_TO_TRY:
            outcome = f"ended with code {code} before it answered"
            if code is None:
                outcome = f"has not answered within {START_TIMEOUT_S:g} s"
            msg = (
                f"The server of {module} on port {found} {outcome}. Start it by hand "
                f"to see why: {' '.join(['python -m', module, *arguments(found)])}"
            )
            raise BackendError(msg)


def show(url: str, what: str) -> None:
    """Report an address, and show the page below the cell of a notebook.

    Args:
        url: The address.
        what: Whose page it is.
    """
    _logger.info("%s is at %s", what, url)
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None and getattr(shell, "kernel", None) is not None:
        from IPython.display import IFrame, display

        display(IFrame(url, width="100%", height=800))


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None  # opened above
    with contextlib.suppress(OSError):  # the server has ended by itself
        process.stdin.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port(first: int, count: int) -> int:
    for port in range(first, min(first + count, 65_536)):
        if _can_bind(port):
            return port
    msg = (
        f"No port from {first} to {first + count - 1} is free on {HOST}. Pass another "
        f"one: port=…."
    )
    raise BackendError(msg)


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        if sys.platform != "win32":  # there it would share the port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _wait_until_up(process: subprocess.Popen[bytes], port: int, mark: str) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection(HOST, port, timeout=5)
        try:
            connection.request("GET", f"/{mark}")
            answer = connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            answer = None
        finally:
            connection.close()
        if answer is not None and mark in ("", answer.decode(errors="replace")):
            return process.poll() is None
        time.sleep(0.1)
    return False
