"""The programs of the page for those who come from elsewhere run as they stand."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A package of this size takes a while to import on a busy machine.
pytestmark = pytest.mark.timeout(600)

PAGE = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PRELUDE = PROGRAM.findall(PAGE)[0]

# A word in a program → the modules that it cannot run without.
NEEDS = {
    '"wandb': ["wandb"],
    '"mlflow': ["mlflow"],
    'tensorboard"': ["tensorboardX"],
    "launch_dashboard": ["tensorboard"],
    "lightning": ["lightning"],
    "log_system_metrics": ["psutil"],
    "import torch": ["torch"],
}

# The same for what is found afterwards in the folder.
LEAVES = {
    '"csv': "**/csv/**/*.csv",
    ',csv"': "**/csv/**/*.csv",
    '"wandb': "**/offline-run-*/*.wandb",
    '"mlflow': "**/mlflow.db",
    'tensorboard"': "**/events.out.tfevents.*",
}


def programs():
    """Yield the programs that stand for themselves, with the section of each."""
    for title, text in SECTION.findall(PAGE):
        found = PROGRAM.findall(text)
        # What builds upon the program before it runs behind it.
        if title in ("Lightning", "From configuration, state aware"):
            found = ["\n\n".join(found)]
        for number, code in enumerate(found, 1):
            modules = [name for word in NEEDS if word in code for name in NEEDS[word]]
            section = "backend" if modules else "slow"
            if "lightning" in modules:  # which needs torch, and no backend
                section = "torch"
            marks = [getattr(pytest.mark, section), pytest.mark.needs(*modules)]
            yield pytest.param(code, id=f"{title} {number}", marks=marks)


@pytest.mark.parametrize("code", list(programs()))
def test_a_program_runs_as_it_stands(code, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(f"{PRELUDE}\n\n{code}", encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DRYTRACK")}
    environment |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])

    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:__main__", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "has missed" not in done.stderr
    records = list(tmp_path.glob("**/.drytrack/*/*/record.json"))
    assert records
    for word, files in LEAVES.items():
        if word in code:
            assert list(tmp_path.glob(files)), f"nothing at {files}"
    for record in records:
        assert '"completed"' in record.read_text(encoding="utf-8")


def test_each_program_of_old_has_a_new_one_behind_it():
    blocks = re.findall(r"^(Before|After)?.*\n\n```(py|python)\n", PAGE, re.MULTILINE)
    kinds = [kind for _, kind in blocks]

    assert kinds.count("py") == len(re.findall(r"^Before", PAGE, re.MULTILINE))
    assert not any(pair == ("py", "py") for pair in itertools.pairwise(kinds))
    assert kinds[-1] == "python"
