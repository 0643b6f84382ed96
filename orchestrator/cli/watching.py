"""Progress on a terminal, while this process drives a study or watches another that does."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live

from orchestrator.cli.show import console, progress_line, progress_table
from orchestrator.progress import Watch

_LINE_EVERY_S = 10.0
Show = Callable[[bool], None]  # whether the study is over


def say(text: str) -> None:
    """Print what is not part of the answer, and so not on standard output."""
    Console(stderr=True, soft_wrap=True).print(text, style="yellow", highlight=False, markup=False)


@dataclass(slots=True)
class Watching:
    """Tells once who drives the study, and shows its progress while that is so."""

    show: Show
    told: bool = False

    def __call__(self, driver: Mapping[str, Any]) -> None:
        """Show progress; the first time, say whose."""
        if not self.told:
            say(
                f"process {driver.get('pid', '?')} on {driver.get('host', '?')} drives this study; this one watches, "
                "and goes on if that one dies. --takeover takes the study from a driver that is stuck."
            )
            self.told = True
        self.show(False)

    def end(self) -> None:
        """Say that the study is this process's now, if it had to wait for it."""
        if self.told:
            say("this process has the study now")


@contextmanager
def showing(watch: Watch, *, quiet: bool) -> Iterator[Show]:
    """Yield what shows progress: a live table on a terminal, a line now and then elsewhere."""
    if quiet:
        yield lambda _: None
    elif sys.stdout.isatty():
        with Live(console=console, auto_refresh=False, transient=True) as live:

            def redraw(is_over: bool) -> None:
                snapshot = watch.look(at_once=is_over)
                if snapshot:
                    live.update(progress_table(snapshot), refresh=True)

            yield redraw
    else:
        last = [float("-inf")]

        def write(is_over: bool) -> None:
            if time.monotonic() - last[0] >= _LINE_EVERY_S or is_over:
                last[0] = time.monotonic()
                snapshot = watch.look(at_once=True)
                if snapshot:
                    console.print(progress_line(snapshot), highlight=False, markup=False)

        yield write
