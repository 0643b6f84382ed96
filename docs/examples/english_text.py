"""Real English from the packages that Seedbed itself needs: the prose of their docstrings, as JSON lines.

    python docs/examples/english_text.py english.jsonl

A document is the prose of one docstring: paragraphs that are sentences, each kept once; no code, tables or lists of
parameters. The order is that of package, file and line, so that equal versions give equal bytes on every machine.
"""

import ast
import importlib.metadata
import json
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

# Distribution → the package that it installs. All of them come with Seedbed; licences are printed.
PACKAGES = {
    "matplotlib": "matplotlib",
    "networkx": "networkx",
    "numpy": "numpy",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "ray": "ray",
    "scipy": "scipy",
    "sympy": "sympy",
    "torch": "torch",
}
PYTHON = "Python's standard library"
FEWEST_WORDS = 8
LEAST_LETTERS = 0.72  # of a paragraph's characters, spaces aside: below are formulas, paths, tables
COMMON = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "be",
        "by",
        "can",
        "for",
        "from",
        "if",
        "in",
        "is",
        "it",
        "of",
        "on",
        "or",
        "that",
        "the",
        "this",
        "to",
        "when",
        "which",
        "with",
    ]
)
LEAST_COMMON = 0.2  # of a paragraph's words
# What begins a line of a paragraph that is no prose: code, directives, rulers, tables, lists of parameters.
OTHER = re.compile(
    r"^\s*(>>>|\.\. |[-=~]{3,}|\||\S+ : |:\w+"
    r"|(Args|Arguments|Parameters|Returns?|Raises|Yields|Attributes|Examples?):)",
    re.MULTILINE,
)
SENTENCE = re.compile(r"[A-Z].*[.!?:]$", re.DOTALL)
MARKUP = re.compile(r":\w+(?::\w+)?:`~?([^`<]*)[^`]*`_*|``?([^`]+)``?_*|\*{1,2}([^*\s][^*]*)\*{1,2}")


def folders() -> dict[str, Path]:
    """Return what is read, by the name of its distribution: the standard library first."""
    site = Path(sysconfig.get_path("purelib"))
    found = {name: site / package for name, package in sorted(PACKAGES.items()) if (site / package).is_dir()}
    return {PYTHON: Path(sysconfig.get_path("stdlib"))} | found


def docstrings(folder: Path) -> Iterator[str]:
    """Yield the docstrings of all modules in a folder, by file and line; tests and vendored packages are left out."""
    for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
        parts = path.relative_to(folder).parts
        if {"tests", "test", "testing", "site-packages", "thirdparty_files", "_vendor"} & set(parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        for node in ast.walk(tree):
            text = ast.get_docstring(node) if isinstance(node, documented) else None
            if text:
                yield text


def paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a docstring that are English sentences, each as one line."""
    for block in re.split(r"\n\s*\n", text):
        if OTHER.search(block):
            continue
        line = " ".join(MARKUP.sub(lambda match: next(filter(None, match.groups()), ""), block).split())
        words = re.findall(r"[A-Za-z']+", line)
        dense = "".join(line.split())
        if (
            len(words) >= FEWEST_WORDS
            and SENTENCE.match(line)
            and line.isascii()
            and sum(map(str.isalpha, dense)) >= LEAST_LETTERS * len(dense)
            and sum(word.lower() in COMMON for word in words) >= LEAST_COMMON * len(words)
        ):
            yield line


def documents(folder: Path, seen: set[str]) -> Iterator[str]:
    """Yield the prose of each docstring; a paragraph that stood anywhere before is left out."""
    for text in docstrings(folder):
        new = [line for line in dict.fromkeys(paragraphs(text)) if line not in seen]
        seen.update(new)
        if new:
            yield "\n".join(new) + "\n"


def licence(name: str) -> str:
    """Return what a distribution says of its licence, and its version."""
    if name == PYTHON:
        return f"PSF-2.0 ({sys.version.split()[0]})"
    about = importlib.metadata.metadata(name)
    told = about.get("License-Expression") or next(
        (text.rpartition(" :: ")[2] for text in about.get_all("Classifier") or () if text.startswith("License")),
        (about.get("License") or "see its metadata").splitlines()[0],
    )
    return f"{told} ({about['Version']})"


def main(target: Path) -> None:
    """Write the documents and say what they were made of."""
    seen: set[str] = set()
    with target.open("w", encoding="utf-8") as file:
        for name, folder in folders().items():
            count = size = 0
            for text in documents(folder, seen):
                file.write(json.dumps({"text": text, "source": name}) + "\n")
                count, size = count + 1, size + len(text)
            sys.stdout.write(f"{name}: {count:,} documents, {size:,} bytes, {licence(name)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
