"""What tests of trackers of other packages share."""

from __future__ import annotations

import importlib
import sys

import pytest


@pytest.fixture
def install_tracker(tmp_path, monkeypatch):
    """Return what installs version 1.2 of a package with a tracker ``Theirs``."""

    def install(name, module, code=None):
        info = tmp_path / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: theirs\nVersion: 1.2\n"
        )
        (info / "entry_points.txt").write_text(
            f"[drytrack.trackers]\n{name} = {module}:Theirs\n"
        )
        if code is not None:
            (tmp_path / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, module, raising=False)
        importlib.invalidate_caches()

    return install
