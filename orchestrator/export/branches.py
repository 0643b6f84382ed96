"""Steps as branches of a git repository, as Pythia's are: `step1000`, and `main` for the last one.

A branch is one commit without parents that holds the files of its step and the card; equal files give equal commits,
since author and date are always the same. The user's own configuration of git is not read.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jobs.errors import QueryError
from orchestrator.export.hub import Exported

_WHO = {
    "GIT_AUTHOR_NAME": "Seedbed",
    "GIT_AUTHOR_EMAIL": "seedbed@localhost",
    "GIT_COMMITTER_NAME": "Seedbed",
    "GIT_COMMITTER_EMAIL": "seedbed@localhost",
    "GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


def write_branches(folder: Path, steps: Sequence[Exported]) -> None:
    """Make a bare repository `folder`/.git of the steps and the card that lie in `folder`; raises QueryError."""
    if shutil.which("git") is None:
        raise QueryError("--git needs the program git, which is not here")
    if not (folder / ".git").exists():
        _git(folder, "init", "-q", "--bare", "--initial-branch=main", ".git")
    for one in steps:
        with tempfile.TemporaryDirectory(prefix="seedbed-branch-") as made:
            index = Path(made)
            _commit(folder, one, index)
    _git(folder, "update-ref", "refs/heads/main", f"refs/heads/step{steps[-1].step}")


def _commit(folder: Path, one: Exported, index: Path) -> None:
    place = {"GIT_INDEX_FILE": str(index / "index")}
    files = sorted(one.folder.iterdir())
    card = folder / "README.md"
    for path in [*files, *([card] if card.exists() else [])]:
        blob = _git(folder, "hash-object", "-w", "--no-filters", str(path.absolute()))
        _git(folder, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path.name}", more=place)
    tree = _git(folder, "write-tree", more=place)
    commit = _git(folder, "commit-tree", tree, "-m", f"step {one.step} of {one.run_id}")
    _git(folder, "update-ref", f"refs/heads/step{one.step}", commit)


def _git(folder: Path, *arguments: str, more: dict[str, str] | None = None) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *(["--git-dir", str(folder / ".git")] if arguments[0] != "init" else []), *arguments],
        cwd=folder,
        env=own | _WHO | (more or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise QueryError(f"git {arguments[0]} failed in {folder}: {done.stderr.strip()}")
    return done.stdout.strip()
