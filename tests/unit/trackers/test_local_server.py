"""Servers of pages that belong to a run."""

from __future__ import annotations

import urllib.request

import pytest

from drytrack.core.exceptions import BackendError
from drytrack.trackers import _local_server
from drytrack.trackers._local_server import HOST, serve


def test_a_module_serves_until_the_end(tmp_path):
    def arguments(port):
        return [str(port), "--bind", HOST, "--directory", str(tmp_path)]

    (tmp_path / "page").write_text("curves")
    with serve("http.server", arguments, 18_230) as url:
        assert urllib.request.urlopen(f"{url}page").read() == b"curves"

    with pytest.raises(OSError, match=r"refused|reset"):
        urllib.request.urlopen(f"{url}page")


def test_a_server_that_ends_at_once_is_told_from_one_that_is_too_slow(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "ends_at_once.py").write_text("raise SystemExit(7)")
    (tmp_path / "says_nothing.py").write_text("import time; time.sleep(600)")

    with pytest.raises(BackendError, match=r"ended with code 7 before it answered\."):
        serve("ends_at_once", lambda port: [str(port)], 18_231).__enter__()
    monkeypatch.setattr(_local_server, "START_TIMEOUT_S", 0.5)
    with pytest.raises(BackendError, match=r"has not answered within 0\.5 s\."):
        serve("says_nothing", lambda port: [str(port)], 18_232).__enter__()
