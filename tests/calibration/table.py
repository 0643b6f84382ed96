"""The cells of a run as tables: all of them for docs/coverage.md, or their ranges for docs/statistics.md.

python -m tests.calibration.table [--ranges] calibration.xml
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One line of docs/coverage.md; repetitions are 0 where outcomes were enumerated."""

    estimator: str
    design: str
    n: str
    coverage: float
    above: float
    below: float
    repetitions: int
    verdict: str

    @property
    def place(self) -> tuple[object, ...]:
        """Return what cells are ordered by: numbers of runs as numbers."""
        return (self.estimator, re.sub(r",? P = [.0-9]+", "", self.design), self.n.zfill(9), self.design)

    @property
    def family(self) -> tuple[bool, str, str]:
        """Return whether it fails, the estimator, and the design without P and what else varies within a family."""
        design = re.sub(r",? P = [.0-9]+", "", self.design)
        for varies in (r"(?<=groups) of \d+, correlation [.0-9]+", r", every \d", r" (?<=crossed )\d+ x \d+(?=, true)"):
            design = re.sub(varies, "", design)
        return "fails" in self.verdict, self.estimator, design


def cells(reports: Sequence[Path]) -> list[Cell]:
    """Return the cells, ordered and each once, from pytest's JUnit reports of runs that it made itself."""
    found = {}
    for report in reports:
        for kept in ElementTree.parse(report).iter("property"):  # noqa: S314
            if kept.attrib["name"] == "cell":
                cell = Cell(*json.loads(kept.attrib["value"]))
                found[cell.estimator, cell.design, cell.n] = cell
    return sorted(found.values(), key=lambda cell: cell.place)


def every(found: Sequence[Cell]) -> Iterator[str]:
    """Return one row per cell."""
    yield from _head("estimator", "design", "n", "coverage", "misses above", "below", "repetitions", "verdict")
    for cell in found:
        shares = [_share(share) for share in (cell.coverage, cell.above, cell.below)]
        yield _row(cell.estimator, cell.design, cell.n, *shares, _counted(cell), cell.verdict)


def ranges(found: Sequence[Cell]) -> Iterator[str]:
    """Return one row per estimator and design: least and most over numbers of runs and P."""
    yield from _head("estimator", "design", "n", "coverage", "misses above", "below", "repetitions", "verdict")
    ordered = sorted(found, key=lambda cell: (cell.family, cell.place))
    for (_, estimator, design), group in groupby(ordered, key=lambda cell: cell.family):
        one = list(group)
        sizes = ", ".join(dict.fromkeys(cell.n for cell in sorted(one, key=lambda cell: cell.n.zfill(9))))
        spans = [_span([getattr(cell, name) for cell in one]) for name in ("coverage", "above", "below")]
        verdicts = ", ".join(sorted({cell.verdict for cell in one}))
        counted = " or ".join(dict.fromkeys(_counted(cell) for cell in sorted(one, key=lambda cell: cell.repetitions)))
        yield _row(estimator, design or "independent", sizes, *spans, counted, verdicts)


def _head(*columns: str) -> tuple[str, str]:
    return _row(*columns), "|---" * len(columns) + "|"


def _row(*texts: str) -> str:
    return f"| {' | '.join(texts)} |"


def _counted(cell: Cell) -> str:
    return f"{cell.repetitions:,}" if cell.repetitions else "exact"


def _share(share: float) -> str:
    return f"{abs(share):.3f}".removeprefix("0")


def _span(shares: list[float]) -> str:
    least, most = _share(min(shares)), _share(max(shares))
    return least if least == most else f"{least}–{most}"


if __name__ == "__main__":
    is_short = sys.argv[1] == "--ranges"
    read = cells([Path(name) for name in sys.argv[1 + is_short :]])
    sys.stdout.write("\n".join([*(ranges if is_short else every)(read), ""]))
