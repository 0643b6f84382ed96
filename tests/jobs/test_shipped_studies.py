"""The studies that come with Seedbed: each has a full configuration, a page that says all, and a second block."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from jobs.study import Study
from jobs.study_file import parse_study, read_study
from orchestrator.imports.mapping import read_mapping
from orchestrator.machine import Machine
from orchestrator.plan import plan

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "jobs" / "studies"
HEADINGS = (
    "## The question",
    "## Declared before",
    "## What the paper claims, and what was measured",
    "## What differs",
)


def make_studies() -> ModuleType:
    """Return docs/make_studies.py, which is a program and not part of the package."""
    spec = importlib.util.spec_from_file_location("make_studies", ROOT / "docs" / "make_studies.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MADE = make_studies()
SHOWN = {one.study: one for one in MADE.SHOWN if not one.imported}
IMPORTED = {one.study: one for one in MADE.SHOWN if one.imported}


WITH = {"stability-data": "stability", "stability-init": "stability"}  # on whose page


@pytest.fixture(params=sorted(name for name in SHOWN if name != "basins-inits"))  # it has all with `basins`
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def full(name: str) -> Study:
    return read_study(FOLDER / "full" / f"{name}.yaml")


def test_a_file_is_called_like_its_study(name: str) -> None:
    assert read_study(FOLDER / f"{name}.yaml").name == name
    assert full(name).name == f"{name}-full"


def test_the_full_configuration_asks_the_same_at_another_size(name: str) -> None:
    small, large = read_study(FOLDER / f"{name}.yaml"), full(name)
    for key in ("paper", "seeds.design", "task.name", "model.family", "success.metric"):
        values = []
        for study in (small, large):
            found: object = study.settings
            for part in key.split("."):
                found = found[part] if isinstance(found, dict) else getattr(found, part)
            values.append(found)
        assert values[0] == values[1], key
    assert len(large.runs) >= len(small.runs)


def test_the_full_configuration_can_be_planned(name: str) -> None:
    machine = Machine(2, packs_at_once=2, device="cpu")
    found, small = plan(full(name), None, machine), plan(read_study(FOLDER / f"{name}.yaml"), None, machine)
    if SHOWN[name].alone:
        assert found.total("flops") == small.total("flops") == 0, "points on lines are measured, not trained"
    else:
        assert found.total("flops") > 100 * small.total("flops")
    assert all(condition.parameters > 0 for condition in found.conditions)


@pytest.mark.parametrize("name", sorted(name for name, shown in SHOWN.items() if not shown.alone))
def test_the_second_block_is_the_same_study_on_other_seeds(name: str, tmp_path: Path) -> None:
    file, other = MADE.second_block(name, tmp_path)
    first, second = read_study(FOLDER / f"{name}.yaml"), parse_study(file.read_text(), file.name, FOLDER)
    assert second.name == other == f"{name}-second"
    assert [point.id for point in first.points] == [point.id for point in second.points]
    assert_other_seeds(first, second)


@pytest.mark.parametrize("name", sorted(name for name, shown in SHOWN.items() if shown.alone))
def test_the_second_block_of_what_has_no_seeds_of_its_own_begins_from_others(name: str, tmp_path: Path) -> None:
    first, second = read_study(FOLDER / f"{name}.yaml"), read_study(MADE.second_block(name, tmp_path)[0])
    assert second.name == f"{name}-second"
    assert {run.id for run in first.runs}.isdisjoint(run.id for run in second.runs)
    assert len(first.runs) == len(second.runs)
    begun = 0
    while first.settings.fork and second.settings.fork:
        first, second = (
            read_study(FOLDER / first.settings.fork.study),
            read_study(tmp_path / second.settings.fork.study),
        )
        assert second.name == f"{first.name}-second"
        begun += 1
    assert begun
    assert_other_seeds(first, second)


def assert_other_seeds(first: Study, second: Study) -> None:
    assert len(first.runs) == len(second.runs)
    for which in ("init", "data"):
        seeds = [{getattr(run.seeds, which) for run in study.runs} for study in (first, second)]
        assert not seeds[0] & seeds[1]


def test_every_study_is_run_by_make_studies_and_has_a_page_that_says_all(name: str) -> None:
    assert SHOWN[name].asked
    assert SHOWN[name].figures
    page = (ROOT / "docs" / "studies" / f"{WITH.get(name, name)}.md").read_text(encoding="utf-8")
    assert f"seedbed run {WITH.get(name, name)} " in page
    assert f"../../jobs/studies/{name}.yaml" in page
    assert f"../../jobs/studies/full/{name}.yaml" in page
    assert [heading for heading in HEADINGS if heading not in page] == []
    assert re.search(r"\*\*(Agrees|Cannot tell|Differs)", page), "a plain word"
    assert read_study(FOLDER / f"{name}.yaml").settings.paper.rpartition("arXiv ")[2] in page
    index = (ROOT / "docs" / "studies" / "README.md").read_text(encoding="utf-8")
    assert f"({WITH.get(name, name)}.md)" in index


@pytest.mark.parametrize("name", sorted(IMPORTED))
def test_what_was_trained_elsewhere_has_a_mapping_and_a_page_that_shows_it(name: str) -> None:
    assert IMPORTED[name].asked
    assert IMPORTED[name].figures
    mapping = MADE.MAPPINGS / f"{name}.yaml"
    read_mapping(mapping)  # or every fault in it
    pages = [page for page in (ROOT / "docs").rglob("*.md") if f"examples/{name}.yaml" in page.read_text("utf-8")]
    assert pages


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs" / "images" / "studies").glob("*.png"))
    assert len(pictures) >= 1
    assert max(path.stat().st_size for path in pictures) <= 80_000
