"""The documents name no test that does not exist, and the guarantees one for each."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path.read_text(encoding="utf-8") for path in ROOT.glob("docs/**/*.md")]
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")


def test_every_test_that_the_documents_name_exists():
    named = set(re.findall(r"`(test_\w+)`", "\n".join(PAGES)))
    sources = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    defined = set(re.findall(r"^def (test_\w+)", "\n".join(sources), re.MULTILINE))

    assert len(named) > 30
    assert named - defined == set()


def test_every_claim_in_a_table_names_a_test():
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    claims = [row for row in rows if "shown by" not in row and "---" not in row]

    assert len(claims) > 30
    assert [row for row in claims if "`test_" not in row.rsplit("|", 2)[1]] == []
