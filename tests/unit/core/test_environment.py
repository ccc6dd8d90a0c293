from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import drytrack
from drytrack.core._environment import quick_environment, slow_environment
from drytrack.core._git import MAX_DIFF_BYTES, MAX_UNTRACKED
from drytrack.core._process import this_process

ROOT = Path(drytrack.__path__[0]).parent
SECRET = "s3cr3t-hunter2"
QUICK = (
    "import json; from drytrack.core._environment import quick_environment;"
    "print(json.dumps(quick_environment()))"
)
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
on_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a shell script")


class Repository:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "A")
        self.git("config", "user.email", "a@example.org")

    def git(self, *arguments: str) -> str:
        answer = subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            check=True,
            capture_output=True,
            encoding="utf-8",
        )
        return answer.stdout.strip()

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def commit(self, name: str = "train.py", text: str = "lr = 1\n") -> str:
        self.write(name, text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "c")
        return self.git("rev-parse", "HEAD")

    def describe(self, subfolder: str = "") -> Any:
        return slow_environment(self.folder / subfolder)["git"]


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Repository:
    for name in list(os.environ):
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "global"))
    return Repository(tmp_path / "code")


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def run_python(code: str, *arguments: str, **variables: str) -> Any:
    answer = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
    )
    return json.loads(answer.stdout)


def test_code_from_a_pipe_has_no_script():
    answer = subprocess.run(
        [sys.executable, "-"],
        input=QUICK,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert json.loads(answer.stdout)["script"] is None


def test_the_quick_part_is_plain_and_complete(tmp_path):
    found = quick_environment()

    assert json.loads(json.dumps(found)) == found
    assert found["host"] == this_process().host
    assert found["process"] == this_process().to_dict()
    assert found["working_directory"] == str(tmp_path)
    assert found["rank"]["world_size"] == 1
    assert found["python"]["version"] == sys.version.split()[0]
    assert found["python"]["executable"] == sys.executable
    assert found["cpus"]["count"] == os.cpu_count()
    assert found["memory_bytes"] > 2**20
    assert found["notebook"] is False
    assert not [name for name, part in found.items() if is_failure(part)]


def is_failure(part: object) -> bool:
    return isinstance(part, dict) and "error" in part


def test_the_command_line_is_recorded_without_its_secrets():
    found = run_python(QUICK, "--lr=0.1", f"--token={SECRET}", "--password", SECRET)

    assert "--lr=0.1" in found["command_line"]
    assert found["command_line"][0] == sys.executable
    assert SECRET not in json.dumps(found)


def test_neither_the_environment_nor_the_user_is_recorded():
    found = run_python(QUICK, MY_SETTING="a-value-of-mine", LOGNAME="somebody-here")

    assert "a-value-of-mine" not in json.dumps(found)
    assert "somebody-here" not in json.dumps(found)


def test_the_script_is_recorded_as_an_absolute_path(tmp_path):
    path = tmp_path / "train me.py"
    path.write_text(QUICK, encoding="utf-8")

    answer = subprocess.run(
        [sys.executable, path.name],
        capture_output=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert json.loads(answer.stdout)["script"] == str(path)


def test_the_quick_part_imports_no_framework_and_starts_no_program():
    code = (
        "import sys, json; from drytrack.core._environment import quick_environment;"
        "quick_environment(); print(json.dumps(sorted(sys.modules)))"
    )

    imported = set(run_python(code))

    assert imported.isdisjoint({"torch", "numpy", "importlib.metadata", "platform"})
    assert imported.isdisjoint({"subprocess"}) or sys.platform == "darwin"


def test_versions_of_imported_packages_are_recorded():
    assert quick_environment()["imported"]["numpy"] == np.__version__


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"},
            {"name": "slurm", "job_id": "7", "array_task_id": "3"},
        ),
        (
            {"PBS_JOBID": "8.head", "PBS_QUEUE": "gpu"},
            {"name": "pbs", "job_id": "8.head", "queue": "gpu"},
        ),
        ({"LSB_JOBID": "9"}, {"name": "lsf", "job_id": "9"}),
        (
            {"SGE_ROOT": "/sge", "JOB_ID": "4"},
            {"name": "sge", "root": "/sge", "job_id": "4"},
        ),
        ({"SGE_ROOT": "/sge"}, None),
        ({"JOB_ID": "4"}, None),
        ({}, None),
    ],
)
def test_the_ids_of_schedulers_are_recorded(monkeypatch, variables, expected):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "PBS_", "LSB_", "OAR_", "FLUX_", "SGE_")):
            monkeypatch.delenv(name)
    for name in ("JOB_ID", "JOB_NAME", "QUEUE", "RESTARTED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert quick_environment()["scheduler"] == expected


def test_a_wrong_rank_is_told_in_its_place(monkeypatch):
    monkeypatch.setenv("DRYTRACK_RANK", "first")

    found = quick_environment()

    assert "DRYTRACK_RANK must be" in found["rank"]["error"]
    assert found["host"]


@pytest.mark.skipif(sys.platform == "win32", reason="folder in use")
def test_a_working_directory_that_is_gone_does_not_stop_the_record(
    tmp_path, monkeypatch
):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    found = quick_environment()

    assert "FileNotFoundError" in found["working_directory"]["error"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_names_that_are_no_unicode_can_still_be_stored(tmp_path, monkeypatch):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    monkeypatch.chdir(folder)

    found = quick_environment()

    assert found["working_directory"].endswith("caf\\udce9")
    json.dumps(found, ensure_ascii=False).encode("utf-8")


NOTEBOOK = """
import json
from ipykernel.inprocess.manager import InProcessKernelManager
manager = InProcessKernelManager()
manager.start_kernel()
client = manager.client()
client.start_channels()
client.execute(
    "from drytrack.core._environment import quick_environment\\n"
    "found = quick_environment()"
)
print(json.dumps(manager.kernel.shell.user_ns["found"]))
"""


@pytest.mark.notebook
@pytest.mark.needs("ipykernel")
def test_a_kernel_is_recognised_as_a_notebook(tmp_path):
    found = run_python(
        NOTEBOOK, IPYTHONDIR=str(tmp_path), JPY_SESSION_NAME="/a/b.ipynb"
    )

    assert found["notebook"] is True
    assert found["script"] == "/a/b.ipynb"


@needs_git
def test_a_clean_repository_is_described(repository):
    commit = repository.commit()
    repository.git("remote", "add", "origin", "https://example.org/code.git")

    found = repository.describe()

    assert Path(found.pop("root")).samefile(repository.folder)
    assert found == {
        "commit": commit,
        "branch": "main",
        "remote": "https://example.org/code.git",
        "dirty": False,
        "untracked": [],
    }


@needs_git
def test_a_changed_repository_is_rebuilt_from_commit_and_diff(repository):
    repository.commit("pkg/a b.py", "one\n")
    repository.commit("naïve 模型.py", "two\n")
    repository.write("pkg/a b.py", "ONE\n")
    repository.write("naïve 模型.py", "TWO ✓\n")
    repository.write("staged.py", "three\n")
    repository.git("add", "staged.py")

    found = repository.describe("pkg")
    repository.git("reset", "--quiet", "--hard")
    patch = repository.folder.parent / "patch"
    patch.write_bytes(found["diff"].encode("utf-8"))
    repository.git("apply", str(patch))

    assert found["dirty"] is True
    assert found["diff_truncated"] is False
    assert (repository.folder / "pkg/a b.py").read_text("utf-8") == "ONE\n"
    assert (repository.folder / "naïve 模型.py").read_text("utf-8") == "TWO ✓\n"
    assert (repository.folder / "staged.py").read_text("utf-8") == "three\n"


@needs_git
def test_untracked_files_are_listed_by_name_and_leave_the_code_clean(repository):
    repository.commit(".gitignore", "*.log\n")
    repository.write("new file ü.py", "")
    repository.write("data/1.bin", "")
    repository.write("data/2.bin", "")
    repository.write("noise.log", "")

    found = repository.describe()

    assert sorted(found["untracked"]) == ["data/", "new file ü.py"]
    assert found["dirty"] is False
    assert "diff" not in found


@needs_git
def test_a_list_of_untracked_files_is_cut_and_says_so(repository):
    repository.commit()
    for number in range(MAX_UNTRACKED + 5):
        repository.write(f"{number}.txt", "")

    found = repository.describe()

    assert len(found["untracked"]) == MAX_UNTRACKED
    assert found["untracked_truncated"] is True


@needs_git
def test_a_detached_head_has_a_commit_and_no_branch(repository):
    first = repository.commit()
    repository.commit(text="lr = 2\n")
    repository.git("checkout", "--quiet", "--detach", first)

    found = repository.describe()

    assert (found["commit"], found["branch"]) == (first, None)


@needs_git
def test_a_repository_without_commits_shows_what_was_added(repository):
    repository.write("train.py", "lr = 1\n")
    repository.git("add", "train.py")
    repository.write("train.py", "lr = 2\n")

    found = repository.describe()

    assert (found["commit"], found["branch"]) == (None, "main")
    assert found["dirty"] is True
    assert "+lr = 2" in found["diff"]


@needs_git
@on_posix
def test_a_renamed_file_is_dirty_and_never_untracked(repository):
    # The old name looks like git's own mark for an untracked file.
    repository.commit("?? a.py", "".join(f"{number}\n" for number in range(50)))
    repository.git("mv", "?? a.py", "b.py")

    found = repository.describe()

    assert found["dirty"] is True
    assert found["untracked"] == []


@needs_git
def test_a_large_diff_is_cut_at_a_line(repository):
    repository.commit("big.txt", "x\n")
    repository.write("big.txt", "0123456789" * 10 + "\n" + ("y" * 99 + "\n") * 40_000)

    found = repository.describe()

    assert found["diff_truncated"] is True
    assert MAX_DIFF_BYTES - 200 < len(found["diff"]) <= MAX_DIFF_BYTES
    assert found["diff"].endswith("+" + "y" * 99 + "\n")


@needs_git
def test_secrets_of_the_remote_and_of_the_diff_are_masked(repository):
    repository.commit()
    repository.git("remote", "add", "backup", f"https://me:{SECRET}@example.org/c.git")
    repository.write("train.py", f'password = "{SECRET}"\nlr = 3\n')

    found = repository.describe()

    assert SECRET not in json.dumps(found)
    assert found["remote"].endswith("@example.org/c.git")
    assert "+lr = 3" in found["diff"]


@needs_git
@on_posix
def test_no_program_of_the_users_is_run_and_his_taste_changes_nothing(
    repository, tmp_path, monkeypatch
):
    repository.commit(".gitattributes", "*.py diff=mine\n")
    repository.commit()
    repository.write("train.py", "lr = 2\n")
    trap = script(tmp_path / "trap", f'echo ran >> "{tmp_path}/ran"; cat "$1"')
    for name in ("diff.external", "diff.mine.textconv", "diff.mine.command"):
        repository.git("config", name, str(trap))
    repository.git("config", "core.fsmonitor", str(trap))
    repository.git("config", "core.pager", str(trap))
    for name in ("diff.noprefix", "diff.mnemonicPrefix", "diff.relative"):
        repository.git("config", name, "true")
    repository.git("config", "color.ui", "always")
    repository.git("config", "status.showUntrackedFiles", "no")
    repository.write("new.py", "")
    hook = repository.folder / ".git/hooks/post-index-change"
    hook.parent.mkdir(exist_ok=True)
    shutil.copy(trap, hook)
    (tmp_path / "ran").unlink(missing_ok=True)
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(trap))
    monkeypatch.setenv("GIT_PAGER", str(trap))

    found = repository.describe()

    assert not (tmp_path / "ran").exists()
    assert found["diff"].startswith("diff --git a/train.py b/train.py\n")
    assert found["diff"].endswith("-lr = 1\n+lr = 2\n")
    assert found["untracked"] == ["new.py"]


@needs_git
def test_describing_leaves_the_repository_untouched(repository):
    repository.commit()
    os.utime(repository.folder / "train.py", (1, 1))
    index = repository.folder / ".git/index"
    before = index.read_bytes()

    found = repository.describe()

    assert found["dirty"] is False
    assert index.read_bytes() == before
    assert not list(index.parent.glob("*.lock"))


@needs_git
def test_inside_a_hook_the_folder_counts_and_not_the_hooks_repository(
    repository, tmp_path, monkeypatch
):
    commit = repository.commit()
    other = Repository(tmp_path / "other")
    other.commit("other.py", "")
    monkeypatch.setenv("GIT_DIR", str(other.folder / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other.folder / ".git/index"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.folder))

    found = repository.describe()

    assert found["commit"] == commit
    assert Path(found["root"]).samefile(repository.folder)


@needs_git
def test_a_folder_outside_any_repository_has_no_git(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    assert slow_environment(tmp_path)["git"] is None


@needs_git
def test_a_folder_that_does_not_exist_is_an_error_in_its_place(tmp_path):
    found = slow_environment(tmp_path / "missing")

    assert "missing" in found["git"]["error"]
    assert found["packages"]["pytest"] == pytest.__version__


@needs_git
def test_a_damaged_repository_says_why(repository):
    repository.commit()
    repository.write("train.py", "lr = 2\n")
    (repository.folder / ".git/index").write_bytes(b"garbage")

    found = repository.describe()

    assert found["branch"] == "main"
    assert "index" in found["error"]


def test_a_missing_git_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert "git is not installed" in slow_environment(tmp_path)["git"]["error"]


@on_posix
def test_a_git_that_hangs_is_left_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr("drytrack.core._git.TIMEOUT_S", 0.5)
    script(tmp_path / "git", f'echo $$ > "{tmp_path}/pid"; sleep 600 & sleep 600')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    found = slow_environment(tmp_path)
    group = int((tmp_path / "pid").read_text())

    assert "did not answer within 0.5 s" in found["git"]["error"]
    assert not group_lives(group)


def group_lives(group: int) -> bool:
    listed = subprocess.run(
        ["ps", "-e", "-o", "pgid=,stat="], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in listed.stdout.splitlines()]
    return any(int(row[0]) == group and row[1][0] != "Z" for row in rows)


def test_the_own_version_is_recorded_where_drytrack_is_installed():
    from importlib.metadata import PackageNotFoundError, version

    try:
        expected = version("drytrack")
    except PackageNotFoundError:
        expected = None

    assert slow_environment(Path())["drytrack"] == expected


@needs_git
def test_the_slow_part_works_on_a_worker_thread_and_is_plain(repository):
    repository.commit()
    results = []
    threads = threading.active_count()
    worker = threading.Thread(
        target=lambda: results.append(slow_environment(repository.folder))
    )

    worker.start()
    worker.join()

    assert json.loads(json.dumps(results[0])) == results[0]
    assert not [name for name, part in results[0].items() if is_failure(part)]
    assert threading.active_count() == threads


def test_installed_packages_have_the_versions_that_the_interpreter_reports():
    from importlib.metadata import distributions, version

    found = slow_environment(Path())["packages"]

    names = {distribution.metadata["Name"] for distribution in distributions()}
    assert found == {name: version(name) for name in names}


@on_posix
def test_graphics_cards_are_read_from_nvidia_smi(tmp_path, monkeypatch):
    script(tmp_path / "nvidia-smi", "echo '0, NVIDIA H100, 81559, 550.54, GPU-1'")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")

    found = slow_environment(tmp_path)["gpu"]

    assert found["visible"]["CUDA_VISIBLE_DEVICES"] == "0"
    assert found["devices"] == [
        {
            "index": "0",
            "name": "NVIDIA H100",
            "memory_mib": "81559",
            "driver": "550.54",
            "uuid": "GPU-1",
        }
    ]


@on_posix
@pytest.mark.parametrize("body", ["exit 9", "sleep 600", "echo nonsense"])
def test_a_broken_nvidia_smi_reports_no_cards(tmp_path, monkeypatch, body):
    monkeypatch.setattr("drytrack.core._gpu.NVIDIA_SMI_TIMEOUT_S", 0.2)
    script(tmp_path / "nvidia-smi", body)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("drytrack.core._gpu._NVIDIA_DRIVER", tmp_path / "driver")

    assert slow_environment(tmp_path)["gpu"]["devices"] == []


def test_graphics_cards_are_read_from_the_driver_without_nvidia_smi(
    tmp_path, monkeypatch
):
    card = tmp_path / "gpus/0000:01:00.0".replace(":", "_")
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA A100\nIRQ: 1\n")
    (tmp_path / "version").write_text("NVRM version: 550.54\nGCC version: 12\n")
    monkeypatch.setattr("drytrack.core._gpu._NVIDIA_DRIVER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))

    found = slow_environment(tmp_path)["gpu"]

    assert found["driver"] == "NVRM version: 550.54"
    assert found["devices"] == [{"name": "NVIDIA A100"}]


@pytest.mark.torch
@pytest.mark.slow
def test_torch_is_asked_without_initialising_cuda():
    code = (
        "import json, torch; from pathlib import Path;"
        "from drytrack.core._environment import slow_environment;"
        "gpu = slow_environment(Path())['gpu'];"
        "print(json.dumps([gpu['torch'], torch.version.cuda, torch.version.hip,"
        "torch.cuda.is_initialized()]))"
    )

    described, cuda, hip, initialized = run_python(code)

    assert described == {"cuda": cuda, "hip": hip}
    assert initialized is False
