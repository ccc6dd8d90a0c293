from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import drytrack
from drytrack.core._rank import Rank, find_rank
from drytrack.core.exceptions import RankError

ROOT = Path(drytrack.__path__[0]).parent
PREFIXES = ("SLURM_", "OMPI_", "PMI_", "MPI_", "LOCAL_RANK", "RANK", "WORLD_SIZE")
LAUNCHERS = [
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
]
ALONE = Rank(rank=0, world_size=1, local_rank=None, source="default")


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for name in list(os.environ):
        if name.startswith(PREFIXES):
            monkeypatch.delenv(name)


def set_variables(monkeypatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_process_that_nobody_launched_is_alone():
    assert find_rank() == ALONE
    assert find_rank().is_main


@pytest.mark.parametrize(("rank", "size", "local"), LAUNCHERS)
def test_each_launcher_is_understood(monkeypatch, rank, size, local):
    set_variables(monkeypatch, **{rank: "5", size: "8", local: "1"})

    found = find_rank()

    assert found == Rank(rank=5, world_size=8, local_rank=1, source=rank)
    assert not found.is_main


@pytest.mark.parametrize(("rank", "size", "local"), LAUNCHERS)
def test_a_local_rank_that_is_not_told_is_unknown(monkeypatch, rank, size, local):
    set_variables(monkeypatch, **{rank: "1", size: "2"})

    assert find_rank() == Rank(rank=1, world_size=2, local_rank=None, source=rank)


@pytest.mark.parametrize(("rank", "size", "local"), LAUNCHERS)
@pytest.mark.parametrize(
    "pair",
    [
        ("0", "1"),
        ("1", "1"),
        ("2", "2"),
        ("-1", "4"),
        ("1", "-4"),
        ("one", "4"),
        ("1", "four"),
        ("1.0", "4"),
        ("1_0", "40"),
        ("²", "4"),
        ("", ""),
        ("1", "9" * 5_000),
    ],
)
def test_a_pair_that_cannot_be_is_passed_over(monkeypatch, rank, size, local, pair):
    set_variables(monkeypatch, **{rank: pair[0], size: pair[1]})

    assert find_rank() == ALONE


@pytest.mark.parametrize(("rank", "size", "local"), LAUNCHERS)
def test_a_rank_without_a_world_size_is_passed_over(monkeypatch, rank, size, local):
    set_variables(monkeypatch, **{rank: "3", local: "3"})

    assert find_rank() == ALONE


def test_the_argument_wins_over_everything(monkeypatch):
    set_variables(monkeypatch, DRYTRACK_RANK="2", RANK="1", WORLD_SIZE="4")

    found = find_rank(3)

    assert found == Rank(rank=3, world_size=4, local_rank=None, source="argument")


def test_the_variable_of_drytrack_wins_over_launchers(monkeypatch):
    set_variables(
        monkeypatch, DRYTRACK_RANK=" 0 ", RANK="1", WORLD_SIZE="4", LOCAL_RANK="1"
    )

    found = find_rank()

    assert found == Rank(rank=0, world_size=4, local_rank=1, source="DRYTRACK_RANK")


def test_a_rank_beyond_the_known_world_enlarges_it():
    assert find_rank(6).world_size == 7


def test_an_empty_variable_of_drytrack_counts_as_unset(monkeypatch):
    monkeypatch.setenv("DRYTRACK_RANK", "")

    assert find_rank() == ALONE


@pytest.mark.parametrize("text", ["main", "-1", "1.5", "+1", "1_0"])
def test_a_wrong_variable_of_drytrack_is_refused_with_its_value(monkeypatch, text):
    monkeypatch.setenv("DRYTRACK_RANK", text)

    with pytest.raises(RankError, match=r"DRYTRACK_RANK must be .* got '") as caught:
        find_rank()

    assert text in str(caught.value)


def test_a_wrong_variable_of_drytrack_does_not_stop_an_argument(monkeypatch):
    monkeypatch.setenv("DRYTRACK_RANK", "main")

    assert find_rank(1).rank == 1


@pytest.mark.parametrize("rank", [-1, True, "0", 1.0, [0]])
def test_a_wrong_argument_is_refused_with_its_value(rank):
    with pytest.raises(RankError, match="rank must be an integer") as caught:
        find_rank(rank)

    assert repr(rank) in str(caught.value)


def test_an_integer_of_numpy_is_an_argument():
    found = find_rank(np.int64(2))

    assert type(found.rank) is int
    assert found.rank == 2


@given(rank=st.integers(0, 2**20), above=st.integers(1, 2**20))
def test_whatever_rank_a_launcher_gives_is_found(rank, above):
    with pytest.MonkeyPatch.context() as monkeypatch:
        size = max(2, rank + above)
        set_variables(monkeypatch, RANK=str(rank), WORLD_SIZE=str(size))

        found = find_rank()

    assert (found.rank, found.world_size) == (rank, size)


def test_a_batch_script_that_runs_without_srun_is_alone(monkeypatch):
    set_variables(monkeypatch, SLURM_JOB_ID="17", SLURM_PROCID="0", SLURM_NTASKS="8")

    assert find_rank() == ALONE


def test_the_first_task_of_srun_belongs_to_its_step(monkeypatch):
    set_variables(
        monkeypatch,
        SLURM_JOB_ID="17",
        SLURM_STEP_ID="0",
        SLURM_PROCID="0",
        SLURM_NTASKS="8",
        SLURM_STEP_NUM_TASKS="4",
    )

    assert find_rank() == Rank(0, 4, None, source="SLURM_PROCID")


def test_mpirun_inside_a_batch_script_wins_over_the_script(monkeypatch):
    set_variables(
        monkeypatch,
        SLURM_JOB_ID="17",
        SLURM_STEP_ID="1",
        SLURM_PROCID="0",
        SLURM_NTASKS="2",
        OMPI_COMM_WORLD_RANK="5",
        OMPI_COMM_WORLD_SIZE="8",
    )

    assert find_rank() == Rank(5, 8, None, source="OMPI_COMM_WORLD_RANK")


def run_python(code: str, cwd: Path, **variables: str) -> list[str]:
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
    )
    return answer.stdout.split()


def test_finding_the_rank_imports_no_torch(tmp_path):
    code = (
        "import sys; from drytrack.core._rank import find_rank; find_rank();"
        "print('torch' in sys.modules)"
    )

    assert run_python(code, tmp_path) == ["False"]


TORCH = """
from drytrack.core._rank import find_rank
import torch.distributed as dist
print(find_rank().source)
store = dist.FileStore("store", 1)
dist.init_process_group("gloo", store=store, rank=0, world_size=1)
found = find_rank()
print(found.rank, found.world_size, found.local_rank, found.source)
dist.destroy_process_group()
print(find_rank().source)
"""


@pytest.mark.torch
@pytest.mark.slow
def test_an_initialised_torch_wins_over_launchers(tmp_path):

    words = run_python(TORCH, tmp_path, RANK="1", WORLD_SIZE="4", LOCAL_RANK="1")

    assert words == ["RANK", "0", "1", "1", "torch.distributed", "RANK"]
