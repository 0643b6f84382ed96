"""PyTorch Lightning as the script of a study: its Trainer logs, saves and leaves when the study wants it.

    run = seedbed.given()
    lightning.seed_everything(run.seeds.init)
    trainer = lightning.Trainer(max_steps=run.steps, callbacks=[SeedbedCallback()], **arguments_of(run))
    trainer.fit(module, loader, ckpt_path=checkpoint_of(run))

What the module logs at each step (`self.log("train.loss", loss)`) is reported under its own name at every probe of the
study, what it logs in a validation after each. A run that was cut off in the middle of an epoch goes on as Lightning
does: with a loader that has no state of its own it begins that epoch's data anew.
"""

import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

import seedbed
from seedbed.script import GivenRun

_FILE = "lightning.ckpt"


def arguments_of(run: GivenRun) -> dict[str, Any]:
    """Return what of the Trainer's arguments a study decides: nothing else saves, logs or draws a bar."""
    return {
        "accelerator": "cpu" if run.device == "cpu" else "gpu",
        "devices": run.processes,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
    }


def checkpoint_of(run: GivenRun) -> Path | None:
    """Return the `ckpt_path` of `Trainer.fit`: the checkpoint to go on from, or None."""
    return run.resume_folder / _FILE if run.resume_folder else None


class SeedbedCallback(Callback):
    """Follows a study's schedules and reports to it; does nothing in a script that was started by hand.

    The checkpoint of a step waits until the validation after it is over: what is measured comes first.
    """

    def __init__(self) -> None:
        self._run = seedbed.given() if "SEEDBED_SPEC" in os.environ else None
        self._owes = -1  # the step of a checkpoint that is due
        self._trained: set[str] = set()  # names of metrics, by where they were first seen
        self._validated: set[str] = set()

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Prove the initial weights."""
        if self._run and not self._run.resume_folder and trainer.world_size == 1:
            seedbed.prove(init=module.state_dict())

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        """Save what the last step owes."""
        self._pay(trainer)

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Report what is measured at this step, and note a checkpoint that is due."""
        step = trainer.global_step
        if self._run is None or (self._owes == step):
            return
        leaves, metrics = seedbed.stopping(), trainer.callback_metrics
        self._trained |= metrics.keys() - self._validated
        if self._run.probes_at(step):
            self._report(trainer, self._trained)
        if self._run.saves_at(step) or leaves:
            self._owes = step
        trainer.should_stop = trainer.should_stop or leaves

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        """Report what was measured in a validation, and save."""
        if self._run is None or trainer.sanity_checking:
            return
        self._validated |= trainer.callback_metrics.keys() - self._trained
        self._report(trainer, self._validated)
        self._pay(trainer)

    def on_train_end(self, trainer: Any, *_: Any) -> None:
        """Save what the last step owes."""
        self._pay(trainer)

    def _report(self, trainer: Any, names: set[str]) -> None:
        if trainer.is_global_zero:
            there = trainer.callback_metrics
            seedbed.log(trainer.global_step, {name: there[name] for name in sorted(names & there.keys())})

    def _pay(self, trainer: Any) -> None:
        if self._owes < 0:
            return
        step, self._owes = self._owes, -1
        trainer.save_checkpoint(seedbed.checkpoint_folder(step) / _FILE)
        if trainer.is_global_zero:
            seedbed.checkpoint(step)
