"""Pieces of runs → runs: what continues what, what is the same again, and what only has the same name.

Tracker exports hold runs cut into up to a dozen pieces whose steps overlap, and now and then two different runs under
one key. A piece that begins later than a lineage continues the one that it agrees with best, if it agrees with any; a
piece that begins where one begins is the same run again only if it measured the same. All others are lineages of
their own. (Overlaps of resumed PolyPythias runs differ by .001 nats in the median, different runs under one key by .1
and more.) Later pieces supersede earlier ones from their first step on, as attempts do; where the two measured a step
differently, that is a finding. Without an order of their own, the later one is the one that ends later: what ends
inside another was not gone on with. A piece in a hole of another, where that measured nothing, takes no step from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

import numpy as np
from numpy.typing import NDArray

from orchestrator.imports.sources import Measurements

Cell = tuple[str, int]  # metric, step


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one run that follow one another.

    cells    → value; counts: → k and m, where they were counted
    dropped  rows that stood there twice, word for word
    """

    name: str
    order: float
    cells: dict[Cell, float]
    counts: dict[Cell, tuple[int, int]]
    dropped: int

    @property
    def first(self) -> int:
        """Return its first step."""
        return min(step for _, step in self.cells)

    @property
    def last(self) -> int:
        """Return its last step."""
        return max(step for _, step in self.cells)

    def is_in_hole_of(self, other: "Piece") -> bool:
        """Return whether `other` begins before it, ends after it, and measured nothing meanwhile."""
        first, last = self.first, self.last
        if not other.first < first <= last < other.last:
            return False
        return not any(first <= step <= last for _, step in other.cells)


@dataclass(slots=True)
class Lineage:
    """Pieces of one run, in the order in which they supersede each other."""

    pieces: list[Piece] = field(default_factory=list)

    @property
    def first(self) -> int:
        """Return the first step of all pieces."""
        return min(piece.first for piece in self.pieces)

    def limit(self, index: int) -> float:
        """Return the step from which on a later piece counts in place of this one; infinite for the last."""
        mine = self.pieces[index]
        others = (p for p in self.pieces[index + 1 :] if not (mine.is_in_hole_of(p) or p.is_in_hole_of(mine)))
        return min((piece.first for piece in others), default=inf)

    def add(self, piece: Piece) -> None:
        """Take a piece in, at its place: by an order of their own, else as they end."""
        self.pieces.append(piece)
        self.pieces.sort(key=lambda p: (p.order, p.last, p.first, p.name))

    def standing(self) -> dict[Cell, float]:
        """Return what the run measured."""
        found: dict[Cell, float] = {}
        for index, piece in enumerate(self.pieces):
            limit = self.limit(index)
            found |= {cell: value for cell, value in piece.cells.items() if cell[1] < limit}
        return found

    def disagreements(self, tolerance: float) -> Iterator[tuple[Cell, int, float, float]]:
        """Yield cell, number of the superseded piece, what it said, and what stands, by metric and step."""
        standing = self.standing()
        for index, piece in enumerate(self.pieces):
            limit = self.limit(index)
            for cell in sorted(piece.cells):
                said, stands = piece.cells[cell], standing.get(cell)
                if cell[1] >= limit and stands is not None and not _is_same(said, stands, tolerance):
                    yield cell, index + 1, said, stands


def lineages(rows: Measurements, chosen: NDArray[np.intp], tolerance: float, same_run: float) -> list[Lineage]:
    """Return the lineages of one key from its rows, those that begin first and last longest first.

    same_run  the largest median relative difference, over shared cells, between a piece and what it continues
    """
    pieces: list[Piece] = []
    for name in sorted(set(rows.piece[chosen].tolist())):
        pieces += _pieces(rows, name, chosen[rows.piece[chosen] == name])
    found: list[Lineage] = []
    for piece in sorted(pieces, key=lambda p: (p.first, -p.last, p.order, p.name)):
        home = _home(piece, found, tolerance, same_run)
        if home is None:
            found.append(Lineage([piece]))
        else:
            home.add(piece)
    return found


def _home(piece: Piece, found: list[Lineage], tolerance: float, same_run: float) -> Lineage | None:
    best: tuple[float, float, int] | None = None
    for index, lineage in enumerate(found):
        standing = lineage.standing()
        off = [_distance(standing[cell], value) for cell, value in piece.cells.items() if cell in standing]
        if piece.first <= lineage.first:
            if off and max(off) <= tolerance:
                return lineage
        elif not off or float(np.median(off)) <= same_run:
            last = max(step for _, step in standing)
            rank = (float(np.median(off)) if off else 0.0, max(piece.first - last, 0.0), index)
            best = rank if best is None or rank < best else best
    return found[best[2]] if best is not None else None


def _pieces(rows: Measurements, name: str, chosen: NDArray[np.intp]) -> list[Piece]:
    """Return the rows under one name as pieces in which no cell stands twice.

    A log that was appended to goes back in step where a piece begins; a sorted table has its pieces side by side.
    Whichever reading needs fewer pieces is taken.
    """
    seen: dict[tuple[str, int, float, int, int], int] = {}
    kept = []
    for row in chosen.tolist():
        counted = int(rows.correct[row]), int(rows.total[row])
        exact = (rows.metric[row], int(rows.step[row]), float(rows.value[row]), *counted)
        if seen.setdefault(exact, row) == row:
            kept.append(row)
    times: dict[Cell, int] = {}
    backward: dict[str, tuple[int, int]] = {}
    by_times, by_steps = [], []
    for row in kept:
        cell = (rows.metric[row], int(rows.step[row]))
        times[cell] = times.get(cell, 0) + 1
        by_times.append(times[cell] - 1)
        last, number = backward.get(cell[0], (-1, 0))
        number += cell[1] <= last
        backward[cell[0]] = (cell[1], number)
        by_steps.append(number)
    is_whole = max(by_times, default=0) == 0
    numbers = by_times if is_whole or max(by_times) < max(by_steps) else by_steps
    found = []
    for number in sorted(set(numbers)):
        mine = [row for row, own in zip(kept, numbers, strict=True) if own == number]
        label = name if is_whole else f"{name}#{number + 1}"
        cells = {(rows.metric[row], int(rows.step[row])): float(rows.value[row]) for row in mine}
        counts = {
            (rows.metric[row], int(rows.step[row])): (int(rows.correct[row]), int(rows.total[row]))
            for row in mine
            if rows.total[row] >= 0
        }
        order = float(np.nanmin(rows.order[mine]))
        found.append(Piece(label, order, cells, counts, len(chosen) - len(kept) if number == 0 else 0))
    return found


def _distance(one: float, other: float) -> float:
    """Return the difference relative to the larger; 0 where neither is a number, infinite where one is not."""
    if np.isnan(one) or np.isnan(other):
        return 0.0 if np.isnan(one) and np.isnan(other) else inf
    if one == other:
        return 0.0
    return abs(one - other) / max(abs(one), abs(other)) if np.isfinite(one) and np.isfinite(other) else inf


def _is_same(one: float, other: float, tolerance: float) -> bool:
    return _distance(one, other) <= tolerance
