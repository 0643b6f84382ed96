"""The house's rules, as tests: what a linter cannot say.

ARCHITECTURE.md holds a fenced tree of the packages. A line of it is indentation, a file's name, and its caption;
the folder is the nearest line above with less indentation and a name that ends in "/".
"""

import ast
import inspect
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import errors

ROOT = Path(__file__).parents[1]
PACKAGES = ("jobs", "workers", "orchestrator", "seedbed")
MOST_LINES, MOST_FUNCTION_LINES = 400, 60
DRAWERS = {"utils", "util", "common", "helpers", "helper", "base", "manager", "misc"}
BANNED = {
    r"pickle\.loads?\(": "pickle does not cross a border",
    r"\byaml\.(load|unsafe_load|full_load)\(": "only safe loaders",
    r"weights_only\s*=\s*False": "torch.load executes what it reads",
    r"shell\s*=\s*True": "no shell",
    r"allow_pickle\s*=\s*True": "numpy files with pickles execute what they read",
    r"np\.random\.(?!Generator|SeedSequence|PCG64|default_rng)\w+": "no global random state",
    r"^\s*(import random|from random import)": "no global random state",
    r"\b(TODO|FIXME|XXX)\b": "open ends belong into the tracker",
    r"NotImplementedError|MagicMock": "no stubs, no mocks",
}
# Broad handlers stand at named borders alone: a user's code, and the mouth of a process.
BROAD = {
    "jobs/language_faults.py": 1,
    "jobs/tasks/__init__.py": 1,
    "jobs/text/tokenizer.py": 1,
    "orchestrator/clusters/inline.py": 1,
    "workers/batches.py": 1,
    "workers/harness.py": 1,
    "workers/models/huggingface.py": 1,
    "workers/probes.py": 3,
    "workers/seed_proof.py": 2,
}


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(params=modules(), ids=name_of)
def module(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_files_and_functions_are_short_and_captioned(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{name_of(module)} does not say what it is"
    assert text.count("\n") <= MOST_LINES
    assert module.stem not in DRAWERS, "a file is named by what it owns"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MOST_FUNCTION_LINES, f"{name_of(module)}: {node.name} has {lines} lines"


def test_nothing_banned_is_in_the_code(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    found = [f"{pattern}: {why}" for pattern, why in BANNED.items() if re.search(pattern, text, re.MULTILINE)]
    assert not found


def test_broad_handlers_stand_at_named_borders_alone(module: Path) -> None:
    handlers = [n for n in ast.walk(ast.parse(module.read_text(encoding="utf-8"))) if isinstance(n, ast.ExceptHandler)]
    broad = [h for h in handlers if h.type is None or ast.unparse(h.type) in ("Exception", "BaseException")]
    assert len(broad) == BROAD.get(name_of(module), 0)


def test_only_the_command_line_prints(module: Path) -> None:
    calls = [n for n in ast.walk(ast.parse(module.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
    prints = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
    assert not prints or name_of(module).startswith("orchestrator/cli/")


def subclasses(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    """Yield those of the house: which of the tests' own exist depends on what else was imported."""
    for child in kind.__subclasses__():
        if not child.__module__.startswith("tests."):
            yield child
        yield from subclasses(child)


def plausible(parameter: inspect.Parameter) -> object:
    values = {
        "str": "text",
        "int": 3,
        "tuple[str, ...]": ("a fault",),
        "tuple[jobs.errors.Fault, ...]": (errors.Fault("a.yaml", 3, "key", "is wrong"),),
    }
    return values[inspect.formatannotation(parameter.annotation)]


@pytest.mark.parametrize("kind", sorted(subclasses(errors.SeedbedError), key=lambda k: k.__name__))
def test_every_error_survives_pickle_and_says_something(kind: type[BaseException]) -> None:
    given = [p for p in inspect.signature(kind.__init__).parameters.values() if p.name != "self"]
    positional = [p for p in given if p.kind is p.POSITIONAL_OR_KEYWORD]
    error = kind(*map(plausible, positional)) if positional else kind("text")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) != ""
    assert vars(again) == vars(error)
    assert kind.__name__ in (errors.__doc__ or ""), "the tree in the module's docstring is complete"


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("jobs", "torch ray wandb"), ("workers", "ray duckdb matplotlib transformers accelerate")],
)
def test_lower_rooms_are_light(package: str, forbidden: str) -> None:
    names = [name_of(p)[:-3].replace("/", ".") for p in modules() if name_of(p).startswith(package)]
    imports = "; ".join(f"import {name}" for name in names if not name.endswith("__main__"))
    check = f"import sys; {imports}; print([m for m in {forbidden.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_command_line_starts_without_torch_and_ray() -> None:
    check = "import sys, orchestrator.cli; print([m for m in ('torch', 'ray', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def tree_of_architecture() -> dict[str, str]:
    """Return path → caption of the captioned tree."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    block = next(part for part in re.findall(r"```\n(.*?)```", text, re.DOTALL) if part.startswith("jobs/"))
    found: dict[str, str] = {}
    folders: list[tuple[int, str]] = []
    for line in block.splitlines():
        match = re.match(r"( *)(\S+)\s+(\S.*)$", line)
        if match is None:
            continue
        indent, name, caption = len(match[1]), match[2], match[3]
        folders = [(depth, folder) for depth, folder in folders if depth < indent]
        path = "".join(folder for _, folder in folders) + name
        if name.endswith("/"):
            folders.append((indent, name))
        found[path] = caption
    return found


def test_the_tree_in_architecture_is_true_and_whole() -> None:
    tree = tree_of_architecture()
    missing = [path for path in tree if not (ROOT / path).exists()]
    assert not missing, "named in ARCHITECTURE.md, but not there"
    wanted = [name_of(p) for p in modules() if p.name != "__init__.py" or len(p.read_text().splitlines()) > 5]
    unnamed = [path for path in wanted if path not in tree and path.removesuffix("__init__.py") not in tree]
    assert not unnamed, "there, but not named in ARCHITECTURE.md"


def test_no_machine_and_no_registry_is_named() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
        cwd=ROOT,
    ).stdout.decode()
    places = re.compile(r"(?<![\w.])/(?:home|root|work|opt|Users|mnt)/\w|(?:pypi\.org|pythonhosted|index-url|npmjs)")
    told = []
    for name in listed.split("\0"):
        path = ROOT / name
        if (
            name
            and path.is_file()
            and path.suffix not in (".png", ".svg", ".parquet")
            and name != name_of(Path(__file__))
        ):
            told += [f"{name}: {m[0]}" for m in places.finditer(path.read_text(encoding="utf-8", errors="replace"))]
    assert not told


def test_relative_links_in_the_documents_lead_somewhere() -> None:
    broken = []
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8")):
            broken += (
                [f"{name_of(document)} → {link}"] if not ("://" in link or (document.parent / link).exists()) else []
            )
    assert not broken
