"""Numbers and brackets as text, the same in the terminal and in the report."""

import re
from collections.abc import Sequence
from math import isfinite, isinf

from orchestrator.estimates.estimate import Estimate
from orchestrator.estimates.onset import MedianOnset
from orchestrator.estimates.success import Interval

INTERVALS = {"wilson": "Wilson", "agresti-coull": "Agresti-Coull", "clopper-pearson": "Clopper-Pearson"}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)([kmbKMB]?)")
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}


def interval(bounds: Interval) -> str:
    """Return an interval of probabilities, such as `[.40, .89]`."""
    return f"[{probability(bounds[0])}, {probability(bounds[1])}]"


def interval_name(measured: Sequence[Estimate]) -> str:
    """Return method and level of the intervals of P(success), such as `Wilson 95 %`; all have those of the first."""
    method, level = (measured[0].method, measured[0].level) if measured else ("wilson", 0.95)
    return f"{INTERVALS.get(method, method)} {100 * level:g} %"


def probability(value: float) -> str:
    """Return a probability with two digits, such as `.40` or `1.00`."""
    return f"{value:.2f}".removeprefix("0") if isfinite(value) else "–"


def amount(text: str) -> float | None:
    """Return what a text such as 14m, 1.5B or 410 means as a number; None where it is none."""
    match = _AMOUNT.fullmatch(text.strip())
    return float(match[1]) * _UNITS[match[2].lower()] if match else None


def number(value: float | None) -> str:
    """Return a number of any size with four digits; a dash where there is none."""
    return "–" if value is None else f"{value:.4g}".replace("inf", "∞")


def onset_text(onset: MedianOnset) -> str:
    """Return a median onset with its bracket, such as `(450, 500]`."""
    low, high = onset.bracket.low, onset.bracket.high
    if not onset.runs:
        return "–"
    if isinf(high):
        return f"not by {low:,.0f}" if isfinite(low) else "–"
    return f"({low:,.0f}, {high:,.0f}]" if isfinite(low) else f"by {high:,.0f}"


def duration(seconds: float) -> str:
    """Return a duration, such as `1 h 05 min`, `3 min 20 s` or `8 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def size(number_bytes: int) -> str:
    """Return a size, such as `1.5 MB`."""
    value = float(number_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} PB"
