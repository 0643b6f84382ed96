"""Run the miniatures of jobs/studies one after another, each with its figures and estimates.

    python docs/make_studies.py STORE [NAME …]          what the store holds is not trained again
    python docs/make_studies.py STORE --second [NAME …] the same studies on their second block of seeds
    python docs/make_studies.py STORE --table FILE NAME  a study that was trained elsewhere, from its table
    python docs/make_studies.py STORE --pictures        copy the figures of the pages to docs/images/studies

Only the statistics and figures that a page shows are listed here; what is trained stands in the study files.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
STUDIES = ROOT / "jobs" / "studies"
MAPPINGS = ROOT / "docs" / "examples"
PAGES = ROOT / "docs" / "studies"
PICTURES = ROOT / "docs" / "images" / "studies"
PARENTS = re.compile(r"^ +study: (\S+\.yaml)$", re.MULTILINE)  # of a fork
SEED_NUMBERS = ("first", "init", "data")  # in the design of a study; the last two are counts where it is crossed
SECOND_FIRST = 10_000  # the first seed of every second block; no shipped study's own block goes so far
EXPOSURES = (0, 1, 2, 5, 10, 50, 100)  # of planted.yaml
Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """A miniature, what is asked of it, and its figures, as arguments of `seedbed estimate` and `seedbed plot`.

    figures  name of the file → kind and options; the first one is on the page
    alone    its seeds are those of the studies that it begins from
    imported it was trained elsewhere: its table is given, and MAPPINGS has a file of its name that says what is in it
    """

    study: str
    asked: tuple[Words, ...]
    figures: dict[str, Words] = field(default_factory=dict)
    alone: bool = False
    imported: bool = False


CLOSENESS = "trees.interdependence_closeness"
# Words so many places apart, with one edge of the tree between them and with two.
NEAR_FAR = tuple((f"trees.interdependence.{apart}.1", f"trees.interdependence.{apart}.2") for apart in (1, 2, 3))
TOGETHER = "trees.shapley_closeness_placed"
SKILL: Words = ("--against-threshold", "0.75")
BEFORE: Words = ("--metric", "trees.uas", "--threshold", "0.33", "--against", "attractor.accuracy", *SKILL)
SPENT: Words = ("--metric", "heldout.loss", "--falling", "--against", "cost.flops")
SHOWN = (
    Shown(
        "sparse-parity",
        (("success",), ("success-over-scale",), ("modes",), ("distances",), ("scaling-law",), ("lineages",)),
        {"law": ("law",), "probability": ("probability",), "loss": ("scores", "--metric", "heldout.loss")},
    ),
    Shown(
        "addition",
        (("success",), ("success-over-scale",), ("modes",), ("distances",), ("scaling-law",), ("onset",)),
        {"law": ("law",), "loss": ("scores", "--metric", "heldout.loss")},
    ),
    Shown(
        "twins",
        (
            ("variance",),
            ("variance", "--metric", "heldout.loss"),
            ("groups",),
            (
                "compare",
                "--metric",
                "heldout.item",
                "--condition",
                "training.steps=1000",
                "--condition",
                "training.steps=2000",
            ),
            ("agreement", "--metric", "heldout.item"),
        ),
        {"variance": ("variance",), "distances": ("distances", "--condition", "training.steps=2000")},
    ),
    Shown(
        "stability",
        (
            ("outliers", "--metric", "heldout.loss"),
            ("outliers", "--metric", "attractor.accuracy"),
            ("agreement", "--metric", "attractor.item"),
            ("agreement", "--metric", "agreement.item"),
            *(("states", "--condition", f"model.width={width}") for width in (16, 24)),
            ("mean", "--metric", "heldout.loss"),
            ("mean", "--metric", "attractor.accuracy"),
            ("onset",),
            ("success",),
        ),
        {
            "fan": ("fan", "--metric", "attractor.accuracy"),
            "map": ("map", "--condition", "model.width=24"),
            "loss": ("fan", "--metric", "heldout.loss"),
        },
    ),
    *(
        Shown(
            f"stability-{which}",
            (
                ("agreement", "--metric", "attractor.item"),
                ("mean", "--metric", "heldout.loss"),
                ("mean", "--metric", "attractor.accuracy"),
                ("outliers", "--metric", "heldout.loss"),
            ),
            {"fan": ("fan", "--metric", "attractor.accuracy")},
        )
        for which in ("init", "data")
    ),
    Shown(
        "trees",
        (
            ("mean", "--metric", "gen.tree"),
            ("difference", "--metric", "gen.tree", "--against", "gen.line"),
            ("commitment", "--metric", "gen.tree", "--against", "gen.line", "--tolerance", "0.1", "--unstable", "0.05"),
            ("instability", "--metric", "gen.tree"),
            ("mean", "--metric", "heldout.accuracy"),
        ),
        {"fan": ("fan", "--metric", "gen.tree"), "scores": ("scores", "--metric", "gen.tree")},
    ),
    Shown(
        "planted",
        (
            *(("mean", "--metric", f"seen_{n}.{what}") for what in ("token_accuracy", "accuracy") for n in EXPOSURES),
            ("success",),
        ),
        {
            "words": ("numbered", "--metric", "seen_*.token_accuracy"),
            "strings": ("numbered", "--metric", "seen_*.accuracy"),
            "loss": ("numbered", "--metric", "seen_*.loss"),
        },
    ),
    Shown(
        "combinations",
        (
            ("difference", "--metric", "heldout.accuracy", "--against", "unseen.accuracy"),
            ("success",),
            ("success-over-scale",),
            ("curve", "--metric", "unseen.accuracy", "--condition", "task.seen=2"),
            ("onset",),
        ),
        {"fan": ("fan", "--metric", "unseen.accuracy"), "scores": ("scores", "--metric", "unseen.accuracy")},
    ),
    Shown(
        "experts",
        (
            ("difference", "--metric", "heldout.accuracy", "--against", "heldout.best_expert"),
            ("difference", "--metric", "heldout.accuracy", "--against", "heldout.plurality"),
            ("success",),
            ("mean", "--metric", "heldout.accuracy"),
            ("mean", "--metric", "heldout.loss"),
        ),
        {"scores": ("scores", "--metric", "heldout.accuracy", "--threshold", "0")},
    ),
    Shown(
        "composition",
        (
            ("mean", "--metric", CLOSENESS),
            ("success",),
            ("curve", "--metric", CLOSENESS, "--condition", "model.width=64"),
            *(("difference", "--metric", one, "--against", other) for one, other in NEAR_FAR),
            ("mean", "--metric", "attractor.accuracy"),
        ),
        {"fan": ("fan", "--metric", CLOSENESS), "attractor": ("fan", "--metric", "attractor.accuracy")},
    ),
    Shown(
        "interactions",
        (
            ("mean", "--metric", TOGETHER),
            ("success",),
            *(
                ("difference", "--metric", f"trees.shapley.{apart}", "--against", f"trees.shapley.{apart + 1}")
                for apart in (1, 2, 3)
            ),
            ("order", "--metric", TOGETHER, "--threshold", "0.4", "--against", "attractor.accuracy", *SKILL),
            ("curve", "--metric", TOGETHER, "--condition", "task.objective=next"),
            ("curve", "--metric", TOGETHER, "--condition", "task.objective=masked"),
            *(
                ("difference", "--metric", f"trees.shapley.{apart}.1", "--against", f"trees.shapley.{apart}.2")
                for apart in (1, 2, 3)
            ),
            ("mean", "--metric", "trees.shapley_closeness"),
            ("mean", "--metric", "trees.shapley_share"),
            ("mean", "--metric", "attractor.accuracy"),
        ),
        {
            "fan": ("fan", "--metric", TOGETHER),
            "distances": ("numbered", "--metric", "trees.shapley.*"),
            "attractor": ("fan", "--metric", "attractor.accuracy"),
        },
    ),
    Shown(
        "sudden-drops",
        (
            ("order", *BEFORE),
            ("success",),
            ("mean", "--metric", "heldout.loss"),
            ("onset",),
            ("onset", "--metric", "trees.uas", "--threshold", "0.33"),
            ("difference", "--metric", "trees.uas", "--against", "trees.offset_uas"),
            ("mean", "--metric", "trees.tree_attention"),
            ("order", "--metric", "trees.uas", "--threshold", "0.33", "--against", "agreement.accuracy", *SKILL),
        ),
        {
            "order": ("order", *BEFORE),
            "uas": ("fan", "--metric", "trees.uas"),
            "attractor": ("fan", "--metric", "attractor.accuracy"),
            "loss": ("fan", "--metric", "heldout.loss"),
        },
    ),
    Shown("polca", (("hidden", "--against", "carry"),), {"hidden": ("hidden", "--against", "carry")}, alone=True),
    Shown(
        "reinitialised",
        (("success",), ("success-over-scale",), ("modes",), ("distances",), ("scaling-law",)),
        {"scores": ("scores",), "loss": ("scores", "--metric", "heldout.loss")},
    ),
    Shown(
        "fast-forward",
        (
            ("saving", *SPENT),
            ("saving", *SPENT, "--condition", "optimizer.learning_rate=0.001"),
            ("saving", *SPENT[:-1], "cost.examples"),
            *(("mean", "--metric", what) for what in ("heldout.loss", "cost.flops", "fast_forward.repeated")),
        ),
        {"spent": ("spent", "--metric", "heldout.loss", "--against", "cost.flops")},
    ),
    Shown("latent-states", (("states",), ("success",), ("onset",)), {"map": ("map",)}),
    Shown("basins", (("lines",),), {"lines": ("lines",)}, alone=True),
    Shown("basins-inits", (("lines",),), {"lines": ("lines",)}, alone=True),
    Shown(
        "polypythias",
        (
            ("mean",),
            ("outliers",),
            ("clusters",),
            ("modes",),
            ("onset", "--falling"),
            ("distances",),
            *(("states", "--falling", "--condition", f"size={size}") for size in ("14m", "70m", "160m", "410m")),
        ),
        {"map": ("map", "--condition", "size=410m"), "fan": ("fan",), "scores": ("scores",)},
        imported=True,
    ),
    Shown(
        "mlperf",
        (("mean",), ("survival-curve",), ("distances",), ("modes", "--gap", "24576"), ("quantile-laws",)),
        {"scores": ("scores",)},
        imported=True,
    ),
)


def main() -> int:
    """Return 0 where every study was trained and asked."""
    parser = argparse.ArgumentParser(description="Run the miniatures of the studies.")
    parser.add_argument("store", help="a folder; reports lie beside it")
    parser.add_argument("names", nargs="*", help="studies; all where none is named")
    parser.add_argument("--second", action="store_true", help="the second block of seeds")
    parser.add_argument("--table", default="", metavar="FILE", help="the table of the one imported study that is named")
    parser.add_argument("--pictures", action="store_true", help="copy the figures of the pages, and run nothing")
    given = parser.parse_intermixed_args()
    unknown = set(given.names) - {shown.study for shown in SHOWN}
    if unknown:
        parser.error(f"no study is called {', '.join(sorted(unknown))}: {', '.join(s.study for s in SHOWN)}")
    chosen = [shown for shown in SHOWN if not given.names or shown.study in given.names]
    if given.table and not (len(chosen) == 1 and chosen[0].imported):
        parser.error(f"--table is of one study of {', '.join(s.study for s in SHOWN if s.imported)}: name it")
    if given.pictures:
        return copy_pictures(chosen, given.store)
    if given.table:
        return 0 if run_one(chosen[0], Path(given.table), chosen[0].study, given.store) else 1
    chosen = [shown for shown in chosen if not shown.imported]
    return run_all(chosen, given.store, second=given.second)


def run_all(chosen: Sequence[Shown], store: str, *, second: bool = False, options: Words = ()) -> int:
    """Run, ask and draw each study; one that fails is told, and the others go on. Returns how many failed."""
    failed = 0
    for number, shown in enumerate(chosen, 1):
        began = time.monotonic()
        file, name = study_file(shown.study), shown.study
        if second:
            file, name = second_block(shown.study, folder_of(store, "second"))
        print(f"[{number}/{len(chosen)}] {name}", flush=True)
        done = run_one(shown, file, name, store, options)
        told = "" if done else "  FAILED: the same command goes on\n"
        failed += not done
        folder = folder_of(store, name)
        print(f"{told}  took {time.monotonic() - began:.0f} s; estimates: {folder / 'estimates.txt'}; figures:")
        print("\n".join(f"    {path}" for path in sorted(folder.glob("*.png"))), flush=True)
    return failed


def run_one(shown: Shown, file: Path, name: str, store: str, options: Words = ()) -> bool:
    """Train what is missing, write the answers into `estimates.txt` and draw; returns whether all of it went well."""
    folder = folder_of(store, name)
    folder.mkdir(parents=True, exist_ok=True)
    if shown.imported:
        mapping = str(MAPPINGS / f"{shown.study}.yaml")
        made = seedbed("import", "table", str(file), "--map", mapping, "--study", name, "--store", store)
    else:
        made = seedbed("run", str(file), "--store", store, *options)
    if made.returncode:
        return False
    asked = [seedbed("estimate", words[0], name, "--store", store, *words[1:], kept=True) for words in shown.asked]
    answers = [
        f"$ seedbed estimate {' '.join(words)}\n{one.stdout}{one.stderr}"
        for words, one in zip(shown.asked, asked, strict=True)
    ]
    (folder / "estimates.txt").write_text("\n".join(answers), encoding="utf-8")
    drawn = [
        seedbed("plot", words[0], name, "--store", store, "--out", str(folder / f"{picture}.png"), *words[1:])
        for picture, words in shown.figures.items()
    ]
    return not any(one.returncode for one in (*asked, *drawn))


def seedbed(*words: str, kept: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own; its text goes to the terminal, or is kept."""
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", *words]
    return subprocess.run(command, check=False, text=True, capture_output=kept)


def study_file(name: str) -> Path:
    """Return the file of a miniature."""
    return STUDIES / f"{name}.yaml"


def folder_of(store: str, name: str) -> Path:
    """Return where `seedbed run` puts a study's report."""
    place = Path(store).resolve()
    return place.parent / f"{place.name}.report" / name


def second_block(name: str, folder: Path, *, below: bool = False) -> tuple[Path, str]:
    """Write the study with other seeds, from SECOND_FIRST on, as a study of its own; returns file and name.

    Where a study has no seeds but those of the studies that it begins from, these are written with others, too, down to
    the first one (`below` is said of those); the parents of any other fork stay, because its children have other seeds.
    """
    text, other = study_file(name).read_text(encoding="utf-8"), f"{name}-second"
    alone = any(shown.alone for shown in SHOWN if shown.study == name)
    text = _replaced(text, f"study: {name}\n", f"study: {other}\n", name)
    if not alone:
        line = next(line for line in text.splitlines() if line.startswith("seeds: {"))
        numbers = SEED_NUMBERS if "_only" in line else SEED_NUMBERS[:1]  # where a seed is held, it is held elsewhere
        moved = line
        for key in numbers:
            moved = re.sub(rf"\b{key}: (\d+)", lambda found, key=key: f"{key}: {int(found[1]) + SECOND_FIRST}", moved)
        if "first: " not in line:
            moved = moved.replace("{", f"{{first: {SECOND_FIRST}, ", 1)
        text = _replaced(text, line, moved, name)
    folder.mkdir(parents=True, exist_ok=True)
    for parents in PARENTS.findall(text):
        if alone or below:
            file, _ = second_block(parents.removesuffix(".yaml"), folder, below=True)
            text = _replaced(text, f"  study: {parents}\n", f"  study: {file.name}\n", name)
        else:
            shutil.copy(STUDIES / parents, folder / parents)
    file = folder / f"{other}.yaml"
    file.write_text(text, encoding="utf-8")
    return file, other


def _replaced(text: str, old: str, new: str, name: str) -> str:
    """Return a study's text with what stands in it once replaced; raises ValueError where it does not."""
    if text.count(old) != 1:
        raise ValueError(f"{name}.yaml has {old!r} {text.count(old)} times, not once")
    return text.replace(old, new)


def copy_pictures(chosen: Sequence[Shown], store: str) -> int:
    """Copy the first figure of each study that has a page to the documents; returns how many were not there."""
    missing = 0
    PICTURES.mkdir(parents=True, exist_ok=True)
    for shown in (one for one in chosen if (PAGES / f"{one.study}.md").exists()):
        drawn = folder_of(store, shown.study) / f"{next(iter(shown.figures), '')}.png"
        if drawn.exists():
            # A third of the bytes, and no line looks another colour.
            few = Image.open(drawn).convert("RGB").quantize(64)
            few.save(PICTURES / f"{shown.study}.png", optimize=True)
        else:
            print(f"not there: {drawn}")
            missing += 1
    return missing


if __name__ == "__main__":
    sys.exit(main())
