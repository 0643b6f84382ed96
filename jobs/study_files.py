"""The files of a study beside its own: users' tasks, small files, parents, and where its corpora lie.

A study that lies in a store must be whole without the folder that it came from: `files_of` says what goes along, and
`laid_out` puts it where the study can be read as any study file is.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from jobs.errors import Fault, StudyError
from jobs.scratch import Scratch
from jobs.store import is_url
from jobs.study import Study
from jobs.study_file import read_study
from jobs.text.corpus import pointer

_DEPTH = 8  # a study may name files this many folders above its own


def files_of(study: Study, below: str = ".") -> dict[str, str]:
    """Return path → text of every file that the study names, by paths relative to its own folder."""
    found: dict[str, str] = {}
    for point in study.points:
        task = point.condition.task
        if task.code in study.task_sources:
            found[_joined(below, task.name.rpartition(":")[0])] = study.task_sources[task.code]
    for corpus in study.corpora:
        if not is_url(corpus.named) and not PurePosixPath(corpus.named).is_absolute():
            found[_joined(below, corpus.named)] = corpus.text or pointer(corpus.url)
    found |= {_joined(below, path): text for path, text in study.texts.items()}
    rule = study.settings.fork
    if rule is not None:
        parent = read_study(study.folder / rule.study)
        place = _joined(below, rule.study)
        found |= {place: parent.text} | files_of(parent, str(PurePosixPath(place).parent))
    return dict(sorted(found.items()))


def _joined(folder: str, path: str) -> str:
    return str(PurePosixPath(folder) / path)


@contextmanager
def laid_out(files: Mapping[str, str], study_file: str) -> Iterator[Path]:
    """Yield a private folder with the files; raises StudyError for one that would lie outside of it."""
    with Scratch("study") as top:
        folder = top.joinpath(*["study"] * _DEPTH)
        folder.mkdir(parents=True)
        for path, text in files.items():
            target = (folder / path).resolve()
            if top not in target.parents:
                told = f"was submitted with the file {path}, which is not at a relative path: submit it from its file"
                raise StudyError((Fault(study_file, 0, "", told),))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        yield folder
