"""How every figure looks and is written: palette, type, footnote, and files with equal bytes for equal figures.

Colours are those of Okabe & Ito (2008), told apart by the colour-blind; series differ by marker or line as well. Text
stays text in SVG and PDF, so that it can be found, edited and read aloud. Nothing is clipped: limits come from data.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from jobs.errors import QueryError
from orchestrator.estimates.estimate import Cohort

Floats = NDArray[np.float64]
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6b6b6b"
PINK, SKY, AMBER, BLACK = "#CC79A7", "#56B4E9", "#E69F00", "#111111"
PALE = "#A9CDE4"  # blue, opaque, lighter
SERIES = (BLUE, ORANGE, GREEN, PINK, SKY, AMBER, BLACK)
LINES = ("-", "--", "-.", ":")
FORMATS = ("pdf", "svg", "png")
_MANY_STEPS = 8
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelcolor": "#222222",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "text.parse_math": False,  # a `$` in a name is a `$`
    "svg.hashsalt": "seedbed",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Set the style of the figures for a while."""
    with mpl.rc_context(_STYLE):
        yield


def new_figure(width: float = 6.4, height: float = 4.2) -> Figure:
    """Return an empty figure of this size in inches, apart from pyplot's global list."""
    return Figure(figsize=(width, height), layout="constrained")


def write(figure: Figure, path: Path) -> Path:
    """Write the figure in the format of the file's ending, whole or not at all; equal figures give equal bytes."""
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise QueryError(f"{path.name}: a figure is written as {', '.join(FORMATS)}; end the file's name so")
    dates: dict[str, dict[str, Any]] = {
        "pdf": {"CreationDate": None, "Creator": "Seedbed", "Producer": "Seedbed"},
        "svg": {"Date": None, "Creator": "Seedbed"},
        "png": {"Software": None},
    }
    FigureCanvasAgg(figure)
    drawn = BytesIO()
    with house_style():
        figure.savefig(drawn, format=kind, dpi=160, metadata=dates[kind])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.part")
        aside.write_bytes(drawn.getvalue())
        aside.replace(path)
    except OSError as error:
        raise QueryError(f"{path} cannot be written: {error.strerror}") from None
    return path


def footnote(figure: Figure, name: str, cohort: Cohort, text: str) -> None:
    """Say below the figure what it shows: n of how many, which cohort, and how to read it."""
    ended = f"{cohort.known} of {cohort.launched} runs ended"
    lost = f", {cohort.diverged} diverged" if cohort.diverged else ""
    lines = wrapped(f"{short(name)}: {ended}{lost}; cohort {cohort.digest[:8]}; {text}", figure.get_figwidth())
    figure.supxlabel(lines, fontsize=6.8, color=GREY, x=0.01, ha="left")


def wrapped(text: str, width: float) -> str:
    """Return the text in lines that fit a width in inches at the size of a footnote."""
    most, lines = int(width * 19), [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > most:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def short(label: str, most: int = 34) -> str:
    """Return the label, cut where it is too long for a title."""
    return label if len(label) <= most else label[: most - 1] + "…"


def titled(axes: Axes, *lines: str) -> None:
    """Set a title of short lines: a label too long for its panel goes on in the next line, at a space."""
    whole = axes.get_figure(root=True)
    width = axes.get_position().width * (whole.get_figwidth() if whole else 6.4)
    most = max(int(width * 12), 16)
    axes.set_title("\n".join(part for line in lines for part in textwrap.wrap(line, most) or [""]))


def jitter(count: int) -> Floats:
    """Return offsets in [0, 1) that look random and are the same every time: the golden-ratio sequence."""
    return np.asarray(np.arange(1, count + 1) * 0.6180339887498949 % 1.0, np.float64)


def span(values: Sequence[Any]) -> tuple[float, float]:
    """Return the limits that show all values; exactly [0, 1], with a margin, for proportions."""
    seen = np.concatenate([np.ravel(v) for v in values]) if values else np.array([])
    seen = seen[np.isfinite(seen)]
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    margin = 0.04 * (high - low or 1.0)
    return low - margin, high + margin


def step_axis(axes: Axes, steps: Sequence[float]) -> None:
    """Make x an axis of steps: logarithmic past the first ones where most probes lie in the first fifth of training."""
    seen = np.unique(np.asarray(steps, np.float64))
    positive = seen[seen > 0]
    if len(seen) >= _MANY_STEPS and np.median(seen) < seen[-1] / 5:
        axes.set_xscale("symlog", linthresh=float(positive[0]))
        # Matplotlib's own names are formulas, which are off: a `$` in a name is a `$`.
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: _short_number(step, thousands=True)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("step (optimiser updates)")


def _short_number(value: float, *, thousands: bool = False) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), *([("k", 1e3)] if thousands else [])):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def scale_axis(axes: Axes, scales: Floats, name: str) -> None:
    """Make x an axis of scale with a tick at each scale; logarithmic where the scales span a factor of four."""
    if scales.min() > 0 and scales.max() / scales.min() >= 4:
        axes.set_xscale("log")
    ticks = scales if len(scales) <= 12 else scales[:: len(scales) // 8]
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    texts = [_short_number(float(tick)) for tick in ticks]
    crowded = sum(map(len, texts)) > 50
    axes.set_xticklabels(texts, rotation=30 if crowded else 0, ha="right" if crowded else "center")
    axes.set_xlabel(name)
