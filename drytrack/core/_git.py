"""What git says about the code that runs: commit, branch, and what differs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from drytrack.core._command import CommandTimeoutError, Output, run_bounded
from drytrack.core._secrets import mask_text

__all__ = ["describe_repository"]

TIMEOUT_S: Final = 5.0
MAX_DIFF_BYTES: Final = 2**20
MAX_LIST_BYTES: Final = 2**20
MAX_UNTRACKED: Final = 1_000

# No lock, no daemon, no hook, no pager; names as they are; a patch in the form
# that `git apply` takes, whatever the user prefers to read.
_OPTIONS: Final = (
    "--no-pager",
    "--no-optional-locks",
    "-c",
    "core.fsmonitor=false",
    "-c",
    f"core.hooksPath={os.devnull}",
    "-c",
    "core.quotePath=false",
    "-c",
    "status.renames=false",
    "-c",
    "diff.relative=false",
    "-c",
    "diff.noprefix=false",
    "-c",
    "diff.mnemonicPrefix=false",
)
_DIFF_OPTIONS: Final = (
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--submodule=short",
)
# Set inside a hook, where they name the repository of the commit in progress; or
# meant for somebody who reads along.
_UNSET: Final = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_DIFF_OPTS",
        "GIT_DIR",
        "GIT_EXTERNAL_DIFF",
        "GIT_INDEX_FILE",
        "GIT_NAMESPACE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_WORK_TREE",
    }
)


class _GitError(Exception):
    """Git could not answer."""


def describe_repository(folder: Path) -> dict[str, object] | None:
    """Describe the git work tree around a folder; never raise.

    Nothing in the repository is changed or locked, nothing is fetched, and no
    program that the user configured for showing differences is run.

    Args:
        folder: Any folder of the work tree.

    Returns:
        None if the folder belongs to no repository. Otherwise ``root``,
        ``commit`` (None before the first one), ``branch`` (None when detached),
        ``remote`` without credentials, ``dirty`` (whether tracked files differ
        from the commit), ``untracked`` (names; a folder stands for what is in
        it), ``untracked_truncated`` where there are more, and, when dirty, the
        ``diff`` with secrets masked and ``diff_truncated``. Where git fails,
        ``error`` says why, beside what was found until then.
    """
    program = shutil.which("git")
    if program is None:
        return {"error": "git is not installed, or not on PATH."}
    record: dict[str, object] = {}
    try:
        git = _Git(program, folder)
        root = git.ask("rev-parse", "--show-toplevel", accept=(0, 128))
        if root.code != 0 and "not a git repository" in root.stderr:
            return None
        record["root"] = _one_line(git.checked(root))
        _describe(git, record)
    except (_GitError, CommandTimeoutError, OSError) as err:
        record["error"] = mask_text(str(err))
    return record


def _describe(git: _Git, record: dict[str, object]) -> None:
    head = git.ask("rev-parse", "--verify", "--quiet", "HEAD", accept=(0, 1))
    commit = _one_line(head)
    record["commit"] = commit
    branch = git.ask("symbolic-ref", "--quiet", "--short", "HEAD", accept=(0, 1))
    record["branch"] = _one_line(branch)
    record["remote"] = _remote(git)
    # Collapsed folders: listing each file in a data set could take minutes.
    status = git.ask("status", "--porcelain", "-z", "--untracked-files=normal")
    entries = status.text.split("\0")[:-1]
    untracked = [entry[3:] for entry in entries if entry.startswith("?? ")]
    dirty = len(untracked) < len(entries)
    record["dirty"] = dirty
    record["untracked"] = untracked[:MAX_UNTRACKED]
    if status.truncated or len(untracked) > MAX_UNTRACKED:
        record["untracked_truncated"] = True
    if not dirty:
        return
    if commit is None:
        # Its id depends on the hash that the repository uses.
        empty = git.ask("hash-object", "-t", "tree", "--stdin")
        commit = _one_line(empty) or "HEAD"
    diff = git.ask("diff", *_DIFF_OPTIONS, commit, "--", limit_bytes=MAX_DIFF_BYTES)
    text = diff.text
    if diff.truncated:
        # Half a line could hide from the mask that a secret is in it.
        text = text[: text.rfind("\n") + 1]
    record["diff"] = mask_text(text)
    record["diff_truncated"] = diff.truncated


def _remote(git: _Git) -> str | None:
    pattern = r"^remote\..*\.url$"
    # Exit code 1: there is no such entry.
    answer = git.ask("config", "-z", "--get-regexp", pattern, accept=(0, 1))
    urls: dict[str, str] = {}
    for entry in answer.text.split("\0")[:-1]:
        key, _, url = entry.partition("\n")
        urls.setdefault(key, url)
    chosen = urls.get("remote.origin.url") or next(iter(urls.values()), None)
    return None if chosen is None else mask_text(chosen)


def _one_line(answer: Output) -> str | None:
    return answer.text.rstrip("\r\n") or None


class _Git:
    def __init__(self, program: str, folder: Path) -> None:
        self._command = (program, *_OPTIONS)
        self._folder = folder
        self._environment = _environment()

    def ask(
        self,
        *arguments: str,
        accept: tuple[int, ...] = (0,),
        limit_bytes: int = MAX_LIST_BYTES,
    ) -> Output:
        answer = run_bounded(
            [*self._command, *arguments],
            timeout_s=TIMEOUT_S,
            limit_bytes=limit_bytes,
            cwd=self._folder,
            environment=self._environment,
        )
        return self.checked(answer, accept)

    def checked(self, answer: Output, accept: tuple[int, ...] = (0,)) -> Output:
        if answer.code not in accept and not answer.truncated:
            reason = answer.stderr or f"git ended with exit code {answer.code}."
            raise _GitError(reason)
        return answer


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.upper() not in _UNSET and not name.upper().startswith("GIT_TRACE")
    }
    return kept | {
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_PAGER": "cat",
        "GIT_TERMINAL_PROMPT": "0",
        # A partial clone would fetch what a diff lacks; older versions of git
        # know only the second way to forbid it.
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        # Messages are compared in English; names are bytes in any case.
        "LC_ALL": "C",
    }
