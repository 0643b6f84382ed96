"""Seedbed in a notebook: open a store and ask.

    import seedbed

    store = seedbed.open("results")
    store.runs("widths").pandas()
    store.metrics("heldout.accuracy", study="widths").arrow()
    store.sql("SELECT condition, count(*) FROM runs GROUP BY condition").pandas()
    store.success_probability("widths")["model.width=8"]
    store.estimate("success-over-scale", study="widths").midpoint
    store.estimates("widths").pandas()
    store.run("r1-05ec…").weights(step=750)

Every number is the one that the command line and the report show: they call the same functions.

In a script that a study trains (`engine: {command: …}`):

    run = seedbed.given()
    for step in range(run.first_step, run.steps + 1):
        seedbed.log(step, **{"train.loss": loss, "heldout.accuracy": (right, asked)})
        seedbed.checkpoint(step)

What a script needs is the standard library alone; the rest is imported where it is used.
"""

from typing import TYPE_CHECKING, Any

from seedbed.script import GivenRun, checkpoint, checkpoint_folder, diverged, given, log, prove, stopping

if TYPE_CHECKING:
    from seedbed.results import Answer, Results, RunOfStore, open  # noqa: A004

__all__ = [
    "Answer",
    "GivenRun",
    "Results",
    "RunOfStore",
    "checkpoint",
    "checkpoint_folder",
    "diverged",
    "given",
    "log",
    "open",
    "prove",
    "stopping",
]
_OF_RESULTS = ("Answer", "Results", "RunOfStore", "open")


def __getattr__(name: str) -> Any:
    if name not in _OF_RESULTS:
        raise AttributeError(f"module 'seedbed' has no attribute {name!r}")
    from seedbed import results  # a second, which a script does not have to wait for

    return getattr(results, name)
