"""What others wrote and we ship: pinned byte by byte, with its licence beside it; and nothing else is shipped."""

import hashlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "orchestrator/dashboard/static"
PINNED = {
    "orchestrator/dashboard/static/vendor/uPlot.iife.min.js": (  # uplot 1.6.32
        "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"
    ),
    "orchestrator/dashboard/static/vendor/uPlot.min.css": (
        "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"
    ),
    "orchestrator/dashboard/static/vendor/uPlot.LICENSE": (
        "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd"
    ),
    "tests/browser/vendor/axe.min.js": (  # axe-core 4.14.1
        "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
    ),
    "tests/browser/vendor/axe.LICENSE": "af175b9d96ee93c21a036152e1b905b0b95304d4ae8c2c921c7609100ba8df7e",
}


@pytest.mark.parametrize("name", PINNED)
def test_a_vendored_file_is_what_it_was(name: str) -> None:
    assert hashlib.sha256((ROOT / name).read_bytes()).hexdigest() == PINNED[name]


def test_every_vendored_file_is_pinned_and_licensed() -> None:
    found = [p for folder in (STATIC / "vendor", ROOT / "tests/browser/vendor") for p in folder.iterdir()]
    assert {p.relative_to(ROOT).as_posix() for p in found} == set(PINNED)
    assert "MIT" in (STATIC / "vendor/uPlot.LICENSE").read_text()
    assert "Mozilla Public License" in (ROOT / "tests/browser/vendor/axe.LICENSE").read_text()


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")), ids=lambda p: p.name)
def test_a_module_is_small_captioned_and_makes_no_markup_from_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("// ")
    assert len(text.splitlines()) <= 250
    for banned in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "http:"):
        assert banned not in text.replace("http://www.w3.org/2000/svg", ""), banned
