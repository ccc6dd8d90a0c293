"""Which of several cooperating processes this one is."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import SupportsIndex

from drytrack.core.exceptions import RankError

__all__ = ["RANK_VARIABLE", "Rank", "find_rank"]

RANK_VARIABLE = "DRYTRACK_RANK"

# Innermost launcher first: torchrun and mpirun are started by srun or in a batch
# script, and then SLURM_PROCID numbers their helpers and not their processes.
_LAUNCHERS = (
    ("RANK", ("WORLD_SIZE",), "LOCAL_RANK"),
    (
        "OMPI_COMM_WORLD_RANK",
        ("OMPI_COMM_WORLD_SIZE",),
        "OMPI_COMM_WORLD_LOCAL_RANK",
    ),
    ("PMI_RANK", ("PMI_SIZE",), "MPI_LOCALRANKID"),
    ("SLURM_PROCID", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), "SLURM_LOCALID"),
)


@dataclass(frozen=True, slots=True)
class Rank:
    """Place of this process among those that run the same code together.

    Args:
        rank: Number of this process, from 0.
        world_size: Number of processes, above ``rank``.
        local_rank: Number of this process on its machine; None when unknown.
        source: What told: ``"argument"``, the name of an environment variable,
            ``"torch.distributed"``, or ``"default"``.
    """

    rank: int
    world_size: int
    local_rank: int | None
    source: str

    @property
    def is_main(self) -> bool:
        """Whether this is the process that tracks for all."""
        return self.rank == 0


def find_rank(explicit: SupportsIndex | None = None) -> Rank:
    """Find this process's rank, the most explicit source first.

    The order is the argument, ``DRYTRACK_RANK``, an initialised
    ``torch.distributed``, and the variables of torchrun, Open MPI, PMI and SLURM
    where the world size beside the rank is above one. What a launcher left
    incomplete or contradictory is passed over. Nothing is imported.

    Args:
        explicit: The rank, if the caller knows it. The world size is then taken
            from the other sources, and is at least one above the rank.

    Returns:
        The rank; 0 of 1 where nothing tells otherwise.

    Raises:
        RankError: If ``explicit`` or ``DRYTRACK_RANK`` is not an integer of at
            least 0.
    """
    environment = os.environ
    found = (
        _from_torch(environment)
        or _from_launcher(environment)
        or Rank(rank=0, world_size=1, local_rank=None, source="default")
    )
    if explicit is not None:
        return _override(found, _checked(explicit), "argument")
    text = environment.get(RANK_VARIABLE, "").strip()
    if not text:
        return found
    rank = _parse(text)
    if rank is None:
        raise RankError(
            f"{RANK_VARIABLE} must be an integer of at least 0, got {text!r}. "
            f"Set it to this process's number, or unset it."
        )
    return _override(found, rank, RANK_VARIABLE)


def _checked(explicit: object) -> int:
    if isinstance(explicit, SupportsIndex) and not isinstance(explicit, bool):
        rank = operator.index(explicit)
        if rank >= 0:
            return rank
    raise RankError(
        f"rank must be an integer of at least 0, got {explicit!r}. "
        f"Pass this process's number, or None to have it found."
    )


def _override(found: Rank, rank: int, source: str) -> Rank:
    return Rank(
        rank=rank,
        world_size=max(found.world_size, rank + 1),
        local_rank=found.local_rank,
        source=source,
    )


def _parse(text: str | None) -> int | None:
    text = (text or "").strip()
    # int() alone also takes signs, underscores and digits of other scripts; ten
    # digits are enough for any cluster.
    if text.isascii() and text.isdigit() and len(text) <= 10:
        return int(text)
    return None


def _from_torch(environment: Mapping[str, str]) -> Rank | None:
    distributed = sys.modules.get("torch.distributed")
    # Without distributed support, and half-way through torch's own import, the
    # module lacks most of its functions.
    is_initialized = getattr(distributed, "is_initialized", None)
    if distributed is None or is_initialized is None or not distributed.is_available():
        return None
    if not is_initialized():
        return None
    local_ranks = (_parse(environment.get(names[2])) for names in _LAUNCHERS)
    return Rank(
        rank=distributed.get_rank(),
        world_size=distributed.get_world_size(),
        local_rank=next((rank for rank in local_ranks if rank is not None), None),
        source="torch.distributed",
    )


def _from_launcher(environment: Mapping[str, str]) -> Rank | None:
    for rank_name, size_names, local_name in _LAUNCHERS:
        if rank_name == "SLURM_PROCID" and _is_batch_script(environment):
            continue
        rank = _parse(environment.get(rank_name))
        sizes = (_parse(environment.get(name)) for name in size_names)
        world_size = next((size for size in sizes if size is not None), None)
        if rank is None or world_size is None or not rank < world_size > 1:
            continue
        local_rank = _parse(environment.get(local_name))
        return Rank(rank, world_size, local_rank, source=rank_name)
    return None


def _is_batch_script(environment: Mapping[str, str]) -> bool:
    # A batch script that starts no tasks with srun is a single process, but is told
    # SLURM_PROCID=0 and how many tasks srun would start.
    in_step = "SLURM_STEP_ID" in environment or "SLURM_STEP_NUM_TASKS" in environment
    is_first = _parse(environment.get("SLURM_PROCID")) == 0
    return "SLURM_JOB_ID" in environment and is_first and not in_step
