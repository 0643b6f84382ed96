"""The Trainer of Hugging Face as the script of a study: it logs, evaluates, saves and leaves when the study wants it.

    run = seedbed.given()
    transformers.set_seed(run.seeds.init)
    model = AutoModelForCausalLM.from_config(config)
    arguments = TrainingArguments(output_dir="out", save_total_limit=1, **arguments_of(run))
    trainer = Trainer(model=model, args=arguments, …, callbacks=[SeedbedCallback(evaluate=True)])
    trainer.train(resume_from_checkpoint=run.resume_folder)

`loss` becomes `train.loss`, a mean over the steps since the last log, and `eval_loss` becomes `eval.loss`. What tells
of speed is left out, because no attempt repeats it.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

import seedbed
from seedbed.script import GivenRun

_EVALUATED = "eval_"
_MARK = "weights.sha256"
_AT_THE_END = "train_runtime"  # of a summary that comes after the last checkpoint
_NO_MEASUREMENTS = ("epoch", "total_flos")
_OF_SPEED = ("_runtime", "_per_second", "_compilation_time")


def arguments_of(run: GivenRun) -> dict[str, Any]:
    """Return what of the TrainingArguments a study decides: steps, seeds, and that nothing else saves or logs."""
    return {
        "max_steps": run.steps,
        "seed": run.seeds.dropout,
        "data_seed": run.seeds.data,
        "logging_strategy": "no",
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": run.device == "cpu",
    }


class SeedbedCallback(TrainerCallback):
    """Follows a study's schedules and reports to it; does nothing in a script that was started by hand.

    evaluate  whether the Trainer has a set to evaluate on: at every probe
    """

    def __init__(self, *, evaluate: bool = False) -> None:
        self._run = seedbed.given() if "SEEDBED_SPEC" in os.environ else None
        self._evaluates = evaluate

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Prove the initial weights; raise RuntimeError where it goes on with others than its checkpoint has.

        The Trainer of transformers 5.23 leaves out what a checkpoint calls by another name than the model (the head of
        GPT-NeoX: `embed_out`), and goes on with what was drawn.
        """
        if self._run and not self._run.resume_folder and self._run.processes == 1:
            seedbed.prove(init=model.state_dict())
        mark = self._run.resume_folder / _MARK if self._run and self._run.resume_folder else None
        if mark and mark.exists() and mark.read_text(encoding="utf-8") != _digest(model):
            raise RuntimeError(f"the Trainer has not loaded all weights of the checkpoint at {state.global_step}")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Ask for what is due at this step: a log, an evaluation, a checkpoint, the end."""
        if self._run is None:
            return
        step, leaves = state.global_step, seedbed.stopping()
        probes, saves = self._run.probes_at(step), self._run.saves_at(step) or leaves
        # The mean of the loss since the last log is in no checkpoint: it begins anew with each.
        control.should_log = control.should_log or probes or saves
        control.should_evaluate = control.should_evaluate or (probes and self._evaluates)
        control.should_save = control.should_save or saves
        control.should_training_stop = control.should_training_stop or leaves

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:  # noqa: ARG002
        """Report what the Trainer has measured."""
        if self._run is None or not state.is_world_process_zero or not logs or _AT_THE_END in logs:
            return
        kept = {n: v for n, v in logs.items() if n not in _NO_MEASUREMENTS and not n.endswith(_OF_SPEED)}
        seedbed.log(state.global_step, {_name(name): value for name, value in kept.items()})

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: ARG002
        """Hand the Trainer's checkpoint over."""
        if self._run is None or not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self._run.processes == 1:  # of several each has a part of the weights
            (folder / _MARK).write_text(_digest(model), encoding="utf-8")
        seedbed.checkpoint(state.global_step, folder, copy=_linked)


def _name(metric: str) -> str:
    if metric.startswith(_EVALUATED):
        return f"eval.{metric.removeprefix(_EVALUATED)}"
    return f"train.{metric}"


def _digest(model: Any) -> str:
    """Return the SHA-256 of a model's weights by their names."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _linked(source: str, target: str) -> None:
    """Give a file of a checkpoint, which is never written again, a second name; copy it where that cannot be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
