"""W&B: one of its runs for each run, with the run's own id; group = condition, config = the resolved spec.

W&B reads its own settings from the environment (WANDB_PROJECT, WANDB_ENTITY, WANDB_BASE_URL, WANDB_MODE=offline), and
its key from WANDB_API_KEY or the netrc file: Seedbed never touches it. Only rows and specs are sent: no console, no
code, no git, no figures of the machine. Offline runs stay in the folder for `wandb sync`; of online ones nothing does.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.errors import MirrorError
from orchestrator.mirrors import MirroredRun

_INIT_S = 30.0
_RESERVED = re.compile(r"(metric\.)*_")
_ENDED_WELL = ("finished", "running")


def name_there(metric: str) -> str:
    """Return what a metric is called in W&B, which has names that begin with _ for itself: `metric._step` for `_step`.

    It drops or replaces what others send under those. No two metrics have one name there.
    """
    return f"metric.{metric}" if _RESERVED.match(metric) else metric


class WandbRuns:
    """The mirror of W&B."""

    def __init__(self, folder: Path) -> None:
        try:
            import wandb
        except ImportError:
            raise MirrorError("wandb is not installed: pip install 'seedbed[wandb]'") from None
        self._wandb, self.folder = wandb, folder
        self._place, self._run = folder, None  # type: tuple[Path, Any]

    def begin(self, run: MirroredRun) -> None:
        """Open the run by its id, where W&B knows it as a resume of it."""
        self._place = self.folder / f"{run.id}.{run.first_step:012d}"
        shutil.rmtree(self._place, ignore_errors=True)
        self._place.mkdir(parents=True)
        try:
            self._run = self._wandb.init(
                project=os.environ.get("WANDB_PROJECT") or run.study,
                id=run.id,
                name=run.name,
                group=run.condition[:128],  # the most that W&B takes
                job_type="seed",
                tags=[run.study[:64]],
                config=dict(run.config),
                resume="allow",
                dir=str(self._place),
                settings=self._settings(),
            )
        except self._wandb.Error as error:
            raise MirrorError(f"wandb: {error}") from None

    def _settings(self) -> Any:
        return self._wandb.Settings(
            console="off",
            silent=True,
            init_timeout=_INIT_S,
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send all metrics of a step."""
        try:
            self._run.log({name_there(name): value for name, value in values.items()}, step=step)
        except self._wandb.Error as error:
            raise MirrorError(f"wandb: {error}") from None

    def end(self, status: str) -> None:
        """Wait until W&B has everything, or the file of an offline run is whole."""
        try:
            self._run.summary["seedbed_status"] = status
            offline = self._run.settings.mode == "offline"
            self._run.finish(exit_code=0 if status in _ENDED_WELL else 1)
        except self._wandb.Error as error:
            raise MirrorError(f"wandb: {error}") from None
        self._run = None
        if not offline:
            shutil.rmtree(self._place, ignore_errors=True)

    def abandon(self) -> None:
        """Leave the run as it is; its process ends with this one."""
        self._run = None

    def close(self) -> None:
        """End the process that W&B keeps beside this one."""
        self._wandb.teardown()
