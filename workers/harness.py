"""What EleutherAI's lm-evaluation-harness finds of a run, asked in this process of its model in transformers' form.

The harness makes the prompts, asks and scores; what comes back become rows: `harness.TASK.METRIC`, and after another
dot the filter where it is not `none`. Where every item is right or wrong the row says k of m, else it has the value
alone. The harness's error over items is not asked for: the unit is the run. A run has its tasks, its draws and, of
seed-batched models, its one thread for itself, so that its rows do not depend on the pack.

Files of a study's own tasks lie in a private folder, each as its digest says. Nothing is fetched to be executed:
`evaluate.load` is refused, data sets come without code, and what a model writes is never run.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from math import isclose
from pathlib import Path
from typing import Any

import torch
import yaml

from jobs.errors import ModelError
from jobs.faults import near
from jobs.harness_files import own_tasks
from jobs.measures import HarnessSpec, harness_in
from jobs.scratch import Scratch
from jobs.seeds import Streams
from jobs.spec import Condition, GptSpec, PackedSpec
from jobs.store import Store
from jobs.tasks.task import Mean, Score, Task
from workers.determinism import one_thread
from workers.models.huggingface import library
from workers.progress import Progress
from workers.stored import stored_file
from workers.transformers_form import architecture_of, model_of
from workers.transformers_tokenizer import tokenizer_for

log = logging.getLogger(__name__)
_NEEDED_BY = "measure: harness"


@dataclass(frozen=True, slots=True)
class Asking:
    """The questions of a condition, ready to be asked.

    own      of its tasks those whose files went along with the study
    manager  the harness's register of tasks: the study's, and its own where one of those is asked
    """

    spec: HarnessSpec
    own: tuple[str, ...]
    manager: Any

    def loaded(self, names: Sequence[str], seed: int) -> dict[str, Any]:
        """Return what the harness makes of these tasks; few-shot examples are drawn by `seed`.

        Raises whatever the files of a task raise.
        """
        found: dict[str, Any] = self.manager.load(list(names))
        for task in found["tasks"].values():
            # As its own command does: 0 in a task's file stays 0, because such a task has no examples.
            if self.spec.fewshot is not None and task.get_config("num_fewshot") != 0:
                task.set_config(key="num_fewshot", value=self.spec.fewshot)
            task.set_fewshot_seed(seed=seed)
        return found


@contextmanager
def laid_out(spec: HarnessSpec, read: Callable[[str], bytes]) -> Iterator[Asking]:
    """Yield the questions, the files of the study in a private folder; `read` gives a file by its digest.

    Raises ModelError for a task that there is not, or where the harness is not installed.
    """
    with Scratch("harness") as folder:
        texts = {path: read(digest).decode() for path, digest in spec.files.items()}
        for path, text in texts.items():
            target = folder / "files" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        (folder / "asked").mkdir()
        own = own_tasks(texts)
        for number, task in enumerate(own[name] for name in spec.tasks if name in own):
            # A file of the harness's form that includes the user's and says where the items of this copy lie.
            says: dict[str, Any] = {"include": str(folder / "files" / task.file), "task": task.name}
            if task.items:
                items = {split: [str(folder / "files" / f) for f in files] for split, files in task.items.items()}
                says["dataset_kwargs"] = {"data_files": items, "cache_dir": str(folder / "cache")}
            (folder / "asked" / f"{number}.yaml").write_text(yaml.safe_dump(says), encoding="utf-8")
        mine = tuple(name for name in spec.tasks if name in own)
        yield Asking(spec, mine, _register(spec, own, folder / "asked"))


def _register(spec: HarnessSpec, own: Collection[str], folder: Path) -> Any:
    """Return the harness's register with the tasks in a folder; reading the 14,000 of its own takes 6 s."""
    own_alone = set(spec.tasks) <= set(own)
    manager = library("lm_eval.tasks", _NEEDED_BY).TaskManager
    found = manager(include_path=str(folder), include_defaults=not own_alone)
    for name in spec.tasks:
        if name not in found.task_index:
            told = near(name, [*own, *found.all_tasks])
            raise ModelError(f"{_NEEDED_BY}: neither the study's folder nor lm-eval has a task {name}{told}")
    return found


def check_harness(condition: Condition, read: Callable[[str], bytes]) -> None:
    """Raise ModelError or QueryError where the harness could not be asked; without a harness do nothing.

    The study's own tasks are loaded, which runs the functions that prepare their items.
    """
    spec = harness_in(condition.measure)
    if spec is None:
        return
    if isinstance(condition.model, GptSpec):
        architecture_of(condition.model)
    for package in ("lm_eval.evaluator", "lm_eval.models.huggingface"):
        library(package, _NEEDED_BY)
    with laid_out(spec, read) as asking, _as_ours():
        try:
            asking.loaded(asking.own, seed=0)
        except ModelError:
            raise
        except Exception as error:  # the border to the files of a user's tasks
            raise ModelError(f"{_NEEDED_BY}: {type(error).__name__}: {error}") from error


@contextmanager
def harness_of(
    store: Store, condition: Condition, task: Task, device: str, progress: Progress
) -> "Iterator[Harness | None]":
    """Yield who asks the runs of a pack, if its condition says so; raises NotFound, Corrupt."""
    spec = harness_in(condition.measure)
    if spec is None:
        yield None
        return
    with laid_out(spec, partial(stored_file, store)) as asking:
        yield Harness(asking, condition, task, device, progress)


@dataclass(frozen=True, slots=True)
class Harness:
    """Asks run after run of a pack."""

    asking: Asking
    condition: Condition
    task: Task
    device: str
    progress: Progress

    def measures(self, weights: Mapping[str, torch.Tensor], streams: Streams) -> list[Score | Mean]:
        """Return what is found of the run with these weights; whatever a task's files raise comes out."""
        seed, spec = streams.seeds.evaluation, self.asking.spec
        transformers = library("transformers", _NEEDED_BY)
        evaluator = library("lm_eval.evaluator", _NEEDED_BY)
        # A seed-batched model gives the same bits on any number of threads, one of transformers does not.
        packed = isinstance(self.condition.engine, PackedSpec)
        with one_thread() if packed else nullcontext(), _as_ours():
            # Tasks may draw from the global generators, as the harness lets them; nothing of ours does.
            transformers.set_seed(seed)
            model = model_of(self.condition, weights, self.task).to(self.device)
            asked = self.asking.loaded(spec.tasks, seed)
            answering = _answering(model, tokenizer_for(self.task), self.task.length, spec.batch_size, self.progress)
            found = evaluator.evaluate(answering, asked, limit=spec.limit, bootstrap_iters=0)
        return list(rows_of(found))


def rows_of(found: Mapping[str, Any]) -> Iterator[Score | Mean]:
    """Yield the measurements in what the harness returns, task by task; groups have what it says of their tasks."""
    for task, metrics in sorted(found["results"].items()):
        for key, value in sorted(metrics.items()):
            metric, comma, how = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            name = f"harness.{task}.{metric}" + ("" if how == "none" else f".{how}")
            items = [
                item[metric] for item in found["samples"].get(task, ()) if item["filter"] == how and metric in item
            ]
            right = sum(1 for item in items if item == 1)
            if items and all(item in (0, 1) for item in items) and isclose(value, right / len(items)):
                yield Score(name, right, len(items))
            else:
                yield Mean(name, float(value))


def _answering(model: Any, tokenizer: Any, length: int, batch_size: int, progress: Progress) -> Any:
    """Return the harness's own wrapper of a model, which draws no bars and says when it begins another batch."""
    kind: Any = library("lm_eval.models.huggingface", _NEEDED_BY).HFLM

    class Answering(kind):  # type: ignore[misc]
        def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, override_bs: Any = None) -> Any:  # noqa: ARG002
            return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:  # noqa: ARG002
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:  # noqa: ARG002
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:  # noqa: ARG002
            return super().generate_until(requests, disable_tqdm=True)

        def _model_call(self, *inputs: Any, **more: Any) -> Any:
            progress.begin("a batch of questions")
            return super()._model_call(*inputs, **more)

        def _model_generate(self, *inputs: Any, **more: Any) -> Any:
            progress.begin("a batch of answers")
            return super()._model_generate(*inputs, **more)

    return Answering(
        pretrained=model, tokenizer=tokenizer, max_length=length, batch_size=batch_size, trust_remote_code=False
    )


@contextmanager
def _as_ours() -> Iterator[None]:
    """Let the harness log where the pack logs, draw no bars, and fetch no code, meanwhile."""
    evaluate, datasets = library("evaluate", _NEEDED_BY), library("datasets", _NEEDED_BY)
    asked = library("lm_eval.api.task", _NEEDED_BY)
    theirs, handlers = logging.getLogger("lm_eval"), list(logging.getLogger("workers").handlers)
    before = theirs.propagate, evaluate.load, asked.tqdm, asked.get_metric
    theirs.propagate, evaluate.load = False, _refuse
    asked.tqdm, asked.get_metric = partial(asked.tqdm, disable=True), partial(_metric, asked.get_metric)
    datasets.disable_progress_bars()
    for handler in handlers or [logging.NullHandler()]:
        theirs.addHandler(handler)
    try:
        yield
    finally:
        theirs.propagate, evaluate.load, asked.tqdm, asked.get_metric = before
        for handler in list(theirs.handlers):
            theirs.removeHandler(handler)


def _refuse(name: str, *_: Any, **__: Any) -> Any:
    raise ModelError(f"{_NEEDED_BY}: evaluate.load({name!r}) would fetch code, and execute it")


def _metric(of_theirs: Callable[..., Any], name: str, *more: Any) -> Any:
    found = of_theirs(name, *more)
    if found is None:
        raise ModelError(f"{_NEEDED_BY}: {name} is no metric of lm-eval, and none is fetched")
    return found
