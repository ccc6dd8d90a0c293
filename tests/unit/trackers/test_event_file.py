"""Event files that a full disk or a kill has met."""

from __future__ import annotations

import subprocess
import sys
import zlib

import pytest

from drytrack.trackers._event_file import EventFile, read_messages

FULL_DISK = """
import pathlib, resource, signal, sys, zlib
from drytrack.trackers._event_file import EventFile

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = EventFile(pathlib.Path(sys.argv[1]), zlib.crc32)
file.add(b"first")
file.flush()
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
file.add(b"x" * 5000)
try:
    file.flush()
except OSError:
    print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
file.add(b"last")
file.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_what_did_not_fit_is_written_whole_when_it_fits(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)

    assert said.stdout == "refused\n"
    assert list(read_messages(tmp_path)) == [b"first", b"x" * 5000, b"last"]


def test_a_torn_end_hides_no_later_file(tmp_path):
    first = EventFile(tmp_path, zlib.crc32)
    first.add(b"one")
    first.add(b"two")
    first.close()
    first.path.write_bytes(first.path.read_bytes()[:-6])
    second = EventFile(tmp_path, zlib.crc32)
    second.add(b"three")
    second.close()

    assert list(read_messages(tmp_path)) == [b"one", b"three"]


def test_two_files_of_one_moment_are_two(tmp_path):
    files = [EventFile(tmp_path, zlib.crc32) for _ in range(20)]
    for file in files:
        file.close()

    assert len(list(tmp_path.iterdir())) == 20
