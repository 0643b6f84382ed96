"""A study from the store alone: read again from its text and the files that were submitted with it."""

from collections.abc import Iterator
from contextlib import contextmanager

from jobs.store import Store
from jobs.study import Study
from jobs.study_file import parse_study
from jobs.study_files import laid_out
from orchestrator.declared import Declared, read_declared


@contextmanager
def stored_study(store: Store, name: str) -> Iterator[tuple[Study, Declared]]:
    """Yield the study called `name` as it was submitted last, and its record.

    Raises NotFound, and StudyError where it cannot be read without the folder that it came from.
    """
    declared = read_declared(store, name)
    with laid_out(declared.files, declared.file) as folder:
        yield parse_study(declared.text, declared.file, folder), declared
