"""The command line in this process."""

from typer.testing import CliRunner

from orchestrator.cli import app


def invoke(*arguments: str, code: int = 0) -> str:
    """Return what `seedbed` prints; it must end with this exit code."""
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output
