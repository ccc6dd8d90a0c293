"""The programs of the page for those who come from elsewhere run as they stand."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PRELUDE = PROGRAM.findall(PAGE)[0]

# A word in a program → the modules that it cannot run without.
NEEDS = {
    '"wandb': ["wandb"],
    '"mlflow"': ["mlflow"],
    'tensorboard"': ["tensorboardX"],
    "launch_dashboard": ["tensorboard"],
    "lightning": ["lightning"],
    "log_system_metrics": ["psutil"],
    "from_config": ["pydantic"],
}

# The same for what is found afterwards in the folder.
LEAVES = {
    '"csv': "**/csv/**/*.csv",
    ',csv"': "**/csv/**/*.csv",
    '"wandb': "**/offline-run-*/*.wandb",
    '"mlflow"': "**/mlflow.db",
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
            yield pytest.param(code, id=f"{title} {number}")


@pytest.mark.slow
@pytest.mark.parametrize("code", list(programs()))
def test_a_program_runs_as_it_stands(code, tmp_path):
    for word, modules in NEEDS.items():
        for module in modules:
            if word in code and importlib.util.find_spec(module) is None:
                pytest.skip(f"needs {module}")
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


def test_what_is_shown_before_is_never_run():
    assert PAGE.count("```py\n") == PAGE.count("\nBefore")
