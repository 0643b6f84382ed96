"""Reading a study file: text → checked study, or every fault in it at once.

Each fault names the file, the line and the key, and offers the near miss where there is one. Nothing is
trained, and nothing is written, before a study has passed.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from jobs import tasks
from jobs.errors import Fault, StoreError, StudyError, TaskError, TextRefused
from jobs.faults import describe, locate, near
from jobs.fork import ForkPoint, ForkRule, model_of, reads_alike
from jobs.harness_files import resolved
from jobs.identity import condition_id, condition_spec
from jobs.language_faults import language_faults
from jobs.measures import AskedSteps, RuledHarness
from jobs.script_files import find_script
from jobs.spec import (
    SCRIPT_TASK,
    CommandSpec,
    Condition,
    EngineSpec,
    ModuleSpec,
)
from jobs.stop import MidpointStop, WidthStop
from jobs.study import FACTOR_ROOTS, PARTS, GridBlock, GridPoint, Study, StudySettings
from jobs.text.corpus import Place
from jobs.yaml_tree import Path as Keys
from jobs.yaml_tree import YamlTree, parse

MOST_CONDITIONS = 1_000_000
_SHOWN_FAULTS = 50
_PAIRED = {"all": "there: a line needs two", "siblings": "siblings: forked at one step of one run"}


def read_study(path: Path, below: frozenset[Path] = frozenset()) -> Study:
    """Return the study in the file at `path`; `below` are the files of which it is the parent.

    Raises StudyError with every fault of the file: form, unknown keys, wrong types, impossible or duplicate
    conditions, tasks that cannot be found.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError((Fault(str(path), 0, "", f"no such file{_near_file(path)}"),)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError((Fault(str(path), 0, "", f"cannot be read: {error}"),)) from None
    return parse_study(text, str(path), path.parent, below | {path.resolve()})


def parse_study(text: str, file: str, folder: Path, below: frozenset[Path] = frozenset()) -> Study:
    """Return the study in `text`; `folder` is where the files of a user's own tasks, and of parents, are looked for.

    Raises StudyError with every fault.
    """
    tree, faults = parse(text, file)
    if not isinstance(tree.data, dict):
        raise StudyError((Fault(file, 1, "", "a study is a mapping of keys to values"),))
    if faults and not tree.data:
        raise StudyError(tuple(faults))
    if _is_command(tree.data.get("engine")):  # a script need not be given more than how many steps it makes
        tree = replace(tree, data={"task": {}, "model": {}, "optimizer": {}, **tree.data})
    return _Reader(file, folder, tree, faults, below).study(text)


class _Reader:
    """One reading of one file; collects faults as it goes."""

    def __init__(self, file: str, folder: Path, tree: YamlTree, faults: list[Fault], below: frozenset[Path]) -> None:
        self.file, self.folder, self.tree, self.faults, self.below = file, folder, tree, faults, below
        self.task_codes: dict[str, tuple[str, str | None]] = {}
        self.corpora: set[Place] = set()
        self.measures, questions = resolved(tree.data.get("measure"), folder)
        self.texts = dict(questions.texts)
        for message in questions.faults:
            self._add(("measure",), message)

    def study(self, text: str) -> Study:
        settings: StudySettings | None = None
        try:
            settings = StudySettings.model_validate(self.tree.data)
        except ValidationError as error:
            self._add_all(error.errors(), StudySettings, ())
        points = self._points()
        if settings is not None and settings.fork is not None:
            points = self._forked(settings.fork, sum(1 for _ in settings.seeds.seeds()), points)
        if settings is not None and settings.scale and not any(settings.scale in f for f in self._factor_names()):
            self._add(
                ("scale",),
                f"{settings.scale!r} is not a factor of the grid{near(settings.scale, self._factor_names())}",
            )
        if settings is not None and settings.stop is not None:
            self._check_stop(settings, points)
        if settings is not None and any(isinstance(point.condition.engine, CommandSpec) for point in points):
            self._check_scripts(settings)
        if settings is not None:
            self._check_measures(settings, [point.condition.engine for point in points])
        if settings is not None and settings.execution.nodes > 1:
            self._check_nodes(settings.execution.nodes, points)
        if settings and settings.fork is None and any(point.condition.training.low_rank for point in points):
            self._add(("training", "low_rank"), "adapts what was trained before: give a fork")
        if any(point.condition.polca for point in points) and not _looks_back(settings):
            self._add(("polca",), "looks at runs that have ended: give a fork with `train: false`, without a line")
        if self.faults or settings is None:
            raise StudyError(tuple(dict.fromkeys(sorted(self.faults, key=lambda f: f.line)))[:_SHOWN_FAULTS])
        sources = {code: source for code, source in self.task_codes.values() if source is not None}
        places = tuple(sorted(self.corpora))
        return Study(settings, text, tuple(points), sources, self.folder, places, texts=self.texts)

    def _check_scripts(self, settings: StudySettings) -> None:
        if settings.fork is not None:
            self._add(("fork",), "is of models that Seedbed has: a script takes up its own checkpoints alone")
        if settings.execution.pack_width not in ("calibrated", 1):
            self._add(("execution", "pack_width"), "a script trains one run: leave the width out")

    def _check_measures(self, settings: StudySettings, engines: list[EngineSpec]) -> None:
        if "similarity" in settings.measure:
            self._check_similarity(settings, engines)
        asks = any(isinstance(one, RuledHarness) for one in settings.measure)
        if asks and (settings.fork is None or settings.fork.train):
            told = "the harness asks checkpoints of runs that have ended: give fork, with train: false"
            self._add(("measure",), told)
        if any(isinstance(one, AskedSteps) for one in settings.measure) and not _looks_back(settings):
            told = (
                "similarity over steps looks at runs that have ended: give a fork with `train: false`, without a line"
            )
            self._add(("measure",), told)

    def _check_similarity(self, settings: StudySettings, engines: list[EngineSpec]) -> None:
        if settings.fork is None or settings.fork.line is None:
            self._add(("measure",), "similarity is to the other end of a line: give fork.line")
        if any(isinstance(engine, ModuleSpec) and engine.processes > 1 for engine in engines):
            told = "similarity holds both models in one process: `engine: {name: accelerate}` has one, and measures"
            self._add(("measure",), f"{told} what any other engine has trained")

    def _check_nodes(self, nodes: int, points: list[GridPoint]) -> None:
        for engine in (point.condition.engine for point in points):
            if not isinstance(engine, ModuleSpec):
                told = f"is of accelerate and deepspeed: a run of engine {engine.name} lies on one node"
                self._add(("execution", "nodes"), told)
            elif engine.processes % nodes:
                told = f"{engine.processes} processes are not as many on each of {nodes} nodes"
                self._add(("execution", "nodes"), told)

    def _check_stop(self, settings: StudySettings, points: list[GridPoint]) -> None:
        stop, first = settings.stop, sum(1 for _ in settings.seeds.seeds())
        if settings.seeds.design == "crossed" or settings.fork is not None:
            self._add(("stop",), "gives seeds one by one: it goes with paired, init_only and data_only, without a fork")
        if isinstance(stop, WidthStop) and stop.most < first:
            self._add(("stop", "most"), f"{stop.most} seeds are fewer than the first batch of {first}")
        if not isinstance(stop, MidpointStop):
            return
        if stop.budget < first * len(points):
            self._add(("stop", "budget"), f"{stop.budget} runs are fewer than the first batch of {first * len(points)}")
        values = [dict(point.factors) for point in points]
        numbers = [v for factors in values for v in factors.values() if isinstance(v, int | float) and v is not True]
        alone = all(len(factors) == 1 for factors in values) and len({name for f in values for name in f}) == 1
        if not (alone and len(points) > 1 and len(numbers) == len(points) and all(v > 0 for v in numbers)):
            self._add(("stop",), "midpoint needs a grid of one factor with at least two positive numbers: the scale")

    def _blocks(self) -> list[tuple[Keys, GridBlock]]:
        """Return the products of the grid with the path of each in the file; [] where the form is wrong."""
        grid = self.tree.data.get("grid") or {}
        blocks: list[tuple[Keys, Any]] = [(("grid",), grid)] if isinstance(grid, dict) else []
        if isinstance(grid, list):
            blocks = [(("grid", index), block) for index, block in enumerate(grid) if isinstance(block, dict)]
        return [(keys, block) for keys, block in blocks if all(isinstance(v, list) for v in block.values())]

    def _factor_names(self) -> list[str]:
        fork = self.tree.data.get("fork")
        forked = ["fork.step"] if fork else []
        forked += ["fork.fraction"] if isinstance(fork, dict) and fork.get("line") else []
        return [*(str(name) for _, block in self._blocks() for name in block), *forked]

    def _points(self) -> list[GridPoint]:
        points: dict[str, GridPoint] = {}
        if not all(isinstance(self.tree.data.get(root), dict) for root in PARTS):
            return []
        for keys, block in self._blocks():
            if not self._block_is_possible(keys, block):
                continue
            for values in product(*block.values()):
                factors = tuple(zip(block, values, strict=True))
                point = self._point(keys, factors)
                if point is not None and point.id in points:
                    other = points[point.id].label
                    self._add((*keys, *list(block)[-1:]), f"duplicate condition: {point.label} is the same as {other}")
                elif point is not None:
                    points[point.id] = point
        return list(points.values())

    def _forked(self, rule: ForkRule, drawn: int, points: list[GridPoint]) -> list[GridPoint]:
        """Return one condition per point, condition of the parents and step at which children begin."""
        adapts = any(point.condition.training.low_rank for point in points)
        for key, message in rule.faults(adapts=adapts and rule.train):
            self._add(("fork", key), message)
        if not rule.redraw and drawn > 1:
            self._add(("seeds",), f"nothing is redrawn, so {drawn} seeds would make {drawn} clones of every child")
        path = self.folder / rule.study
        if path.resolve() in self.below:
            self._add(("fork", "study"), "is this study itself, or one that begins where this one was")
            return points
        try:
            parents = read_study(path, self.below)
        except StudyError as error:
            for fault in error.faults:
                self._add(("fork", "study"), str(fault))
            return points
        found = [forked for point in points for forked in self._children(rule, point, parents)]
        if not found and points:
            same = "task and model" if rule.task == "same" else "model"
            self._add(("fork", "study"), f"{rule.study} has no condition with the same {same}")
        return found

    def _children(self, rule: ForkRule, point: GridPoint, parents: Study) -> list[GridPoint]:
        found = []
        fitting = [above for above in parents.points if model_of(above.spec, rule) == model_of(point.spec, rule)]
        fitting = [above for above in fitting if rule.task == "same" or self._reads_alike(point, above, parents)]
        for above in fitting:
            runs = tuple(run for run in parents.runs if run.point is above)
            last = above.condition.training.steps
            steps = [last if step == "last" else step for step in rule.steps]
            if rule.line and not any(True for _ in rule.line.pairs_of(runs)):
                self._add(("fork", "line"), f"{above.label}: no two of its runs are {_PAIRED[rule.line.pairs]}")
            for step in steps:
                end = point.condition.training.steps
                stays = rule.line is not None or not rule.train
                if step > min(last, end) or (step == end and not stays) or steps.count(step) > 1:
                    span = f"the parents have {last} steps, the children end at {end}"
                    self._add(("fork", "steps"), f"{step} is no step to fork at, or is there twice: {span}")
                    continue
                of = (("fork.of", above.label),) if len(fitting) > 1 else ()
                condition, spec = (point.condition, point.spec) if rule.train else _measured_at(point, step)
                for fraction in rule.line.fractions if rule.line else (None,):
                    fork = ForkPoint(rule, step, above.id, runs, fraction)
                    on_line = () if fraction is None else (("fork.fraction", fraction),)
                    factors = (*point.factors, ("fork.step", step), *of, *on_line)
                    found.append(GridPoint(condition_id(spec, fork.spec()), factors, condition, spec, fork))
        return found

    def _reads_alike(self, point: GridPoint, above: GridPoint, parents: Study) -> bool:
        places = {place.digest: place.url for place in self.corpora}
        child, parent = (
            tasks.build(one.condition.task.name, one.condition.task.parameters, folder, where)
            for one, folder, where in ((point, self.folder, places.__getitem__), (above, parents.folder, parents.where))
        )
        why = [*reads_alike(point.condition.model, child, parent)]
        for message in why:
            self._add(("fork", "task"), message)
        return not why

    def _block_is_possible(self, keys: Keys, block: GridBlock) -> bool:
        size = 1
        before = len(self.faults)
        for name, values in block.items():
            root, _, rest = str(name).partition(".")
            if root not in FACTOR_ROOTS or not rest:
                names = ", ".join(f"{r}.…" for r in FACTOR_ROOTS)
                self._add((*keys, name), f"a factor is one of {names}{near(root, FACTOR_ROOTS)}")
            if not values:
                self._add((*keys, name), "has no values: the grid would be empty")
            size *= max(len(values), 1)
        if size > MOST_CONDITIONS:
            self._add(keys, f"{size:,} conditions; the most is {MOST_CONDITIONS:,}")
        return len(self.faults) == before

    def _point(self, keys: Keys, factors: tuple[tuple[str, Any], ...]) -> GridPoint | None:
        data = self.tree.data
        raw: dict[str, Any] = {root: dict(data[root]) for root in FACTOR_ROOTS if isinstance(data.get(root), dict)}
        for name, value in factors:
            if not _set(raw, name.split("."), value):
                self._add((*keys, name), "leads through a value that is not a mapping")
                return None
        places: dict[Keys, Keys] = {tuple(name.split(".")): (*keys, name) for name, _ in factors}
        checkpoints = data.get("checkpoints")
        milestones = checkpoints.get("milestones", []) if isinstance(checkpoints, dict) else []
        checked: tuple[dict[str, Any], tasks.Task | None] | None = (
            (self._script(raw, places), None) if _is_command(raw.get("engine")) else self._task(raw["task"], places)
        )
        candidate = {
            "task": checked[0] if checked else {"name": "", "code": "", "parameters": {}},
            **{root: given for root, given in raw.items() if root != "task"},
            "probes": data.get("probes", {"every": 50}),
            "milestones": milestones,
            "measure": self.measures,
        }
        try:
            condition = Condition.model_validate(candidate)
        except ValidationError as error:
            errors = [e for e in error.errors() if e["loc"][:1] not in (("probes",), ("milestones",), ("measure",))]
            self._add_all([e for e in errors if e["loc"]], Condition, (), places)
            for whole in (e for e in errors if not e["loc"]):  # parts that do not fit together: the engine's to say
                self._add(_place(("engine",), places), describe(whole, "engine", []))
            return None
        if checked is None:
            return None
        for keys_of_fault, message in language_faults(condition, checked[1]) if checked[1] else ():
            self._add(_place(keys_of_fault, places), message)
        spec = condition_spec(condition)
        return GridPoint(condition_id(spec), factors, condition, spec)

    def _script(self, raw: dict[str, Any], places: dict[Keys, Keys]) -> dict[str, Any]:
        """Write the digests of a script's files into the engine; returns what stands for its task."""
        script = find_script(raw["engine"], self.folder)
        raw["engine"] = script.engine
        self.texts |= script.texts
        for key, message in script.faults:
            self._add(_place(("engine", key), places), message)
        return {**SCRIPT_TASK, "parameters": raw["task"]}

    def _task(self, raw: dict[str, Any], places: dict[Keys, Keys]) -> tuple[dict[str, Any], tasks.Task] | None:
        """Return the task's spec with all parameters written out, and the task; None after adding its faults."""
        parameters = {key: value for key, value in raw.items() if key != "name"}
        name = raw.get("name")
        if not isinstance(name, str):
            self._add(("task",), "needs a name: a built-in task, or path.py:Class")
            return None
        try:
            kind = tasks.find(name, self.folder)
            task, corpora = kind.model_validate(parameters).pinned(self.folder)
            self.corpora.update(corpora)
        except StoreError as error:
            self._add(("task", "corpora"), str(error))
            return None
        except TextRefused as error:
            self.faults.extend(error.faults)
            return None
        except TaskError as error:
            self._add(places.get(("task", "name"), ("task", "name")), error.message)
            return None
        except ValidationError as error:
            self._add_all(error.errors(), kind, ("task",), places)
            return None
        if name not in self.task_codes:
            source = tasks.source(name, self.folder)
            text = None if source is None else source.read_text(encoding="utf-8")
            self.task_codes[name] = (tasks.code(name, self.folder), text)
        spec = {"name": name, "code": self.task_codes[name][0], "parameters": task.model_dump(mode="json")}
        return spec, task.bound({place.digest: place.url for place in self.corpora}.__getitem__)

    def _add(self, keys: Keys, message: str) -> None:
        self.faults.append(Fault(self.file, self.tree.line(keys), ".".join(map(str, keys)), message))

    def _add_all(
        self, errors: list[ErrorDetails], model: type[BaseModel], prefix: Keys, places: dict[Keys, Keys] | None = None
    ) -> None:
        for error in errors:
            where, allowed = locate(model, error["loc"])
            keys = (*prefix, *where)
            message = describe(error, str(keys[-1]) if keys else "", allowed)
            self._add(_place(keys, places or {}), message)


def _measured_at(point: GridPoint, step: int) -> tuple[Condition, dict[str, Any]]:
    """Return the condition of a child that ends where it begins, and its spec."""
    training = point.condition.training.model_copy(update={"steps": step})
    condition = point.condition.model_copy(update={"training": training})
    return condition, condition_spec(condition)


def _looks_back(settings: StudySettings | None) -> bool:
    fork = settings.fork if settings else None
    return fork is not None and not fork.train and fork.line is None


def _is_command(engine: Any) -> bool:
    return isinstance(engine, dict) and ("command" in engine or engine.get("name") == "command")


def _place(keys: Keys, places: dict[Keys, Keys]) -> Keys:
    """Return where in the file a key of a condition was given its value: in the grid, if there."""
    below = [place for factor, place in places.items() if factor[: len(keys)] == keys]
    return below[-1] if below else keys


def _set(raw: dict[str, Any], names: list[str], value: Any) -> bool:
    for name in names[:-1]:
        inner = raw.get(name, {})
        if not isinstance(inner, dict):
            return False
        raw[name] = dict(inner)
        raw = raw[name]
    raw[names[-1]] = value
    return True


def _near_file(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path()
    return near(path.name, [p.name for p in sorted(folder.glob("*.yaml"))])
