"""Trainers of others as scripts: their rows and checkpoints, and a run that was cut off goes on as if it had not been.

The trainers run in this process, with the environment of a script; what a pack does with checkpoints is done here.
"""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import seedbed
from seedbed import script

STEPS = 24
Row = dict[str, Any]
pytestmark = pytest.mark.filterwarnings("ignore")  # what these libraries use of torch and of Python is theirs


class Pack:
    """Gives a script its run, and takes checkpoints away once they are announced."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch
        self.ended = threading.Event()

    def given(self, resumed: int = 0) -> seedbed.GivenRun:
        """Return a run from its beginning, or from a checkpoint that was taken."""
        self._patch.chdir(self.folder)
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        self._patch.setattr(script, "_announced", [])
        for name in ("SPEC", "REPORT", "CHECKPOINTS"):
            self._patch.setenv(f"SEEDBED_{name}", str(self.folder / name.lower()))
        body = {
            "run_id": "r1-x",
            "attempt": 1,
            **{part: {} for part in ("task", "model", "optimizer", "training")},
            "seeds": {"init": 1, "data": 2, "dropout": 3, "evaluation": 4},
            "steps": STEPS,
            "resume_step": resumed,
            "resume_folder": str(self.folder / "taken" / str(resumed)) if resumed else "",
            "device": "cpu",
            "threads": 1,
            "processes": 1,
            "probes": [*range(0, STEPS + 1, 4)],
            "milestones": [0, STEPS],
            "rolling_every": 8,
        }
        (self.folder / "spec").write_text(json.dumps(body))
        (self.folder / "report").write_text("")
        return seedbed.given()

    def said(self) -> list[Row]:
        return [json.loads(line) for line in (self.folder / "report").read_text().splitlines()]

    def take(self) -> None:
        """Take every checkpoint that is announced, until the end."""
        (self.folder / "taken").mkdir(exist_ok=True)
        while not self.ended.wait(0.01):
            for line in self.said() if (self.folder / "report").exists() else []:
                made = self.folder / "checkpoints" / str(line.get("checkpoint"))
                if made.exists():
                    shutil.rmtree(self.folder / "taken" / made.name, ignore_errors=True)
                    shutil.copytree(made, self.folder / "taken" / made.name)
                    shutil.rmtree(made)


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pack]:
    monkeypatch.setattr("seedbed.stopping", lambda: False)  # it would take over the signals of this process
    made = Pack(tmp_path, monkeypatch)
    taker = threading.Thread(target=made.take, daemon=True)
    taker.start()
    yield made
    made.ended.set()
    taker.join()


class Rows(Dataset[dict[str, torch.Tensor]]):
    """Random tokens of the run's own evaluation seed."""

    def __init__(self, seed: int, count: int) -> None:
        self.rows = torch.from_numpy(np.random.default_rng(seed).integers(0, 16, (count, 6)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[place], "labels": self.rows[place]}


def with_the_trainer(run: seedbed.GivenRun, kind: str = "gpt2") -> None:
    """Do what a script with the Trainer of Hugging Face does."""
    import transformers

    from seedbed.integrations.transformers import SeedbedCallback, arguments_of

    transformers.set_seed(run.seeds.init)
    sizes = {"vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    more = {"intermediate_size": 16} if kind == "gpt_neox" else {"resid_pdrop": 0.1}
    config = transformers.AutoConfig.for_model(kind, **sizes, **more, max_position_embeddings=6)
    trainer = transformers.Trainer(
        model=transformers.AutoModelForCausalLM.from_config(config),
        args=transformers.TrainingArguments(
            "out", save_total_limit=1, per_device_train_batch_size=4, learning_rate=1e-2, **arguments_of(run)
        ),
        train_dataset=Rows(run.seeds.evaluation, 40),  # an epoch is 10 steps: one of the checkpoints lies within
        eval_dataset=Rows(run.seeds.evaluation + 1, 8),
        callbacks=[SeedbedCallback(evaluate=True)],
    )
    trainer.train(resume_from_checkpoint=run.resume_folder)


def with_lightning(run: seedbed.GivenRun) -> None:
    """Do what a script with PyTorch Lightning does."""
    import lightning

    from seedbed.integrations.lightning import SeedbedCallback, arguments_of, checkpoint_of

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(6, 1)

        def step(self, batch: dict[str, torch.Tensor], name: str) -> torch.Tensor:
            loss = self.layer(batch["input_ids"].float() / 16).pow(2).mean()
            self.log(name, loss)
            return loss

        def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
            return self.step(batch, "train.loss")

        def validation_step(self, batch: dict[str, torch.Tensor], _: int) -> None:
            self.step(batch, "heldout.loss")

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

    lightning.seed_everything(run.seeds.init)
    data, held_out = Rows(run.seeds.evaluation, 32), Rows(run.seeds.evaluation + 1, 8)  # an epoch is 8 steps
    trainer = lightning.Trainer(max_steps=run.steps, callbacks=[SeedbedCallback()], **arguments_of(run))
    trainer.fit(Module(), DataLoader(data, 4), DataLoader(held_out, 4), ckpt_path=checkpoint_of(run))


@pytest.mark.parametrize(
    ("package", "train", "metrics"),
    [
        ("transformers", with_the_trainer, {"train.loss", "train.grad_norm", "train.learning_rate", "eval.loss"}),
        ("lightning", with_lightning, {"train.loss", "heldout.loss"}),
    ],
    ids=["transformers", "lightning"],
)
def test_a_trainer_reports_saves_and_goes_on(
    pack: Pack, package: str, train: Callable[[seedbed.GivenRun], None], metrics: set[str]
) -> None:
    pytest.importorskip(package)
    train(pack.given())
    whole = pack.said()
    rows = [line for line in whole if "step" in line]
    assert {name for row in rows for name in row} == {"step", *metrics}
    assert sorted({row["step"] for row in rows}) == [*range(4, STEPS + 1, 4)]
    assert [line["checkpoint"] for line in whole if "checkpoint" in line] == [8, 16, 24]
    places = {line["checkpoint"]: place for place, line in enumerate(whole) if "checkpoint" in line}
    assert all(whole.index(row) < places[row["step"]] for row in rows if row["step"] in places), "rows come first"
    train(pack.given(resumed=16))
    assert [row for row in pack.said() if "step" in row] == [row for row in rows if row["step"] > 16]


def test_a_trainer_that_resumes_with_other_weights_is_an_error(pack: Pack) -> None:
    """Checkpoints of GPT-NeoX call the head `embed_out`; the Trainer finds no such parameter, and says nothing."""
    pytest.importorskip("transformers")
    with_the_trainer(pack.given(), "gpt_neox")
    with pytest.raises(RuntimeError, match="has not loaded all weights of the checkpoint at 16"):
        with_the_trainer(pack.given(resumed=16), "gpt_neox")


@pytest.mark.parametrize("package", ["transformers", "lightning"])
def test_started_by_hand_a_callback_does_nothing(package: str) -> None:
    pytest.importorskip(package)
    import importlib

    made = importlib.import_module(f"seedbed.integrations.{package}").SeedbedCallback()
    assert made._run is None
