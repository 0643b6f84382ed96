"""The command line: one file per verb, which parses, calls and prints.

    seedbed plan | run | submit | resume | stop | extend
    seedbed list | status | logs | metrics | collect | query | estimate | predict | report | serve | watch | plot
    seedbed verify | replay | import | export | sync | tokenize

Exit codes: 0 done; 1 some runs failed, or the store or the cluster did; 2 bad input; 130 interrupted.
"""

import sys

import typer

from jobs.errors import QueryError, SeedbedError, StudyError, StudyInterrupted
from orchestrator.cli import (
    collect,
    estimate,
    export,
    extend,
    import_runs,
    list,  # noqa: A004
    logs,
    metrics,
    plan,
    plot,
    predict,
    query,
    replay,
    report,
    resume,
    run,
    serve,
    status,
    stop,
    submit,
    sync,
    tokenize,
    verify,
    watch,
)
from orchestrator.cli.show import complain

app = typer.Typer(
    name="seedbed",
    help="Train the same model many times, once per seed, and turn the runs into a distribution.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS = (
    plan,
    run,
    submit,
    tokenize,
    resume,
    stop,
    list,
    status,
    logs,
    metrics,
    extend,
    collect,
    query,
    estimate,
    predict,
    report,
    serve,
    plot,
    verify,
    watch,
    replay,
    sync,
)
for verb in VERBS:
    app.command(verb.__name__.rpartition(".")[2])(verb.command)
app.add_typer(import_runs.app, name="import")
app.add_typer(export.app, name="export")


def main() -> None:
    """Run the command line; an error that a user can act on is one message and an exit code."""
    try:
        app()
    except StudyInterrupted as error:
        complain(str(error))
        sys.exit(130)
    except (StudyError, QueryError) as error:
        complain(str(error))
        sys.exit(2)
    except SeedbedError as error:
        complain(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        complain("interrupted; what was committed is in the store")
        sys.exit(130)
    except BrokenPipeError:  # `seedbed query … | head`
        sys.stderr.close()
        sys.exit(0)
