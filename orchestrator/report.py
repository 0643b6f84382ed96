"""One self-contained HTML page of a study, and its figures beside it: no server, no network, no script."""

import base64
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from jobs.errors import QueryError
from orchestrator import plots
from orchestrator.plots.kinds import KINDS, law
from orchestrator.power_plan import bought
from orchestrator.questions.asked import Question
from orchestrator.questions.headlines import Headlines
from orchestrator.questions.rows import Row
from orchestrator.questions.standing import answered, standing
from orchestrator.summary import StudySummary
from orchestrator.text import interval, interval_name, number, onset_text, probability

_CAPTIONS = {
    "success": "P(success) against scale, and the mean score beside it.",
    "law": "The law of the distribution over scale, a mixture, beside one power law of the mean. Bands are 95 %.",
    "scores": "The last score of every seed. Where there are two clusters, the mean lies where no run is.",
    "curves": "Every seed's curve over the fan of quantiles.",
    "ridgeline": "The distribution over runs at one probe after another.",
    "onsets": "The share of runs that have not broken through yet (Turnbull, from the brackets of the probes).",
}
_MORE_SEEDS = 8


def write_report(question: Question, shown: Headlines, folder: Path, asked: Sequence[str] = ()) -> list[Path]:
    """Write the figures (PNG, SVG) and `report.html` into `folder`; returns the paths, the page first.

    `shown` is what `headlines` says of the same question; where it has a law, that is drawn, too. `asked` are other
    questions whose answers the page is to have; raises QueryError, before anything is written, where there is none.
    """
    rows = [standing(question), *(answered(question, name) for name in asked)]
    folder.mkdir(parents=True, exist_ok=True)
    summary = question.summary()
    written: list[Path] = []
    with plots.house_style():
        for name, draw in plots.FIGURES.items():
            written += plots.save(draw(summary), folder / name)
        if shown.law:
            written += plots.save(law(question), folder / "law")
        for name in ("ridgeline", "onsets"):
            with suppress(QueryError):  # nothing was probed yet, or no run has an outcome
                written += plots.save(KINDS[name].draw(question), folder / name)
    pictures = {path.stem: path for path in written if path.suffix == ".svg"}
    figures = [(name, _CAPTIONS[name], _data_url(pictures[name])) for name in _CAPTIONS if name in pictures]
    page = render(summary, shown, figures, [row for table in rows for row in table.to_pylist()])
    target = folder / "report.html"
    # A reader never finds half a page: written aside, then renamed.
    aside = folder / "report.html.part"
    aside.write_text(page, encoding="utf-8")
    aside.replace(target)
    return [target, *written]


def render(
    summary: StudySummary, shown: Headlines, figures: list[tuple[str, str, str]], rows: Sequence[Row] = ()
) -> str:
    """Return the page; figures are (name, caption, URL), rows those of the SQL table `estimates`.

    Every text is escaped: names and labels may be hostile.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        interval=interval, probability=probability, onset=onset_text, number=number, named=interval_name
    )
    template = environment.from_string(files("orchestrator.templates").joinpath("report.html").read_text("utf-8"))
    launched = sum(condition.launched for condition in summary.conditions)
    known = sum(c.success.cohort.finished + c.success.cohort.diverged for c in summary.conditions)
    return template.render(
        study=summary,
        shown=shown,
        figures=figures,
        rows=rows,
        launched=launched,
        known=known,
        bought=bought(summary, _MORE_SEEDS),
        more=_MORE_SEEDS,
    )


def _data_url(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
