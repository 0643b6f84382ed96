"""A YAML text as plain data, with the line of every key.

Safe tags only. Two traps of YAML 1.1 are closed: `3e-3` is a number here, and `on`, `off`, `yes` and `no`
are words. Keys that stand twice, merge keys and aliases are faults and not silent choices.
"""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from jobs.errors import Fault

Path = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader with the floats and booleans of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, regexp) for tag, regexp in resolvers if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


@dataclass(frozen=True, slots=True)
class YamlTree:
    """Plain data and where each part of it stands.

    lines  the path of a value → the line of its key (or of the value itself, in a list)
    """

    data: Any
    lines: dict[Path, int]

    def line(self, path: Path) -> int:
        """Return the line of `path`, or of its nearest ancestor that stands in the text; 0 for none."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def parse(text: str, file: str) -> tuple[YamlTree, list[Fault]]:
    """Return the data of `text` with its lines, and what is wrong with its form."""
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:
        return YamlTree({}, {}), [Fault(file, 0, "", f"not YAML: {error}")]
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader)):
            return YamlTree({}, {}), [Fault(file, 0, "", "aliases (*name) are not allowed; write the value out")]
        node = loader.get_single_node()
        faults: list[Fault] = []
        lines: dict[Path, int] = {}
        if node is None:
            return YamlTree({}, {}), [Fault(file, 0, "", "the file is empty")]
        _walk(node, (), file, lines, faults)
        return YamlTree(loader.construct_document(node), lines), faults
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return YamlTree({}, {}), [Fault(file, mark.line + 1 if mark else 0, "", f"not YAML: {error.problem}")]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return YamlTree({}, {}), [Fault(file, 0, "", f"not YAML: {error}")]
    finally:
        loader.dispose()


def _walk(node: yaml.Node, path: Path, file: str, lines: dict[Path, int], faults: list[Fault]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = str(key.value)
            if name in seen:
                faults.append(Fault(file, line, name, f"stands here a second time; first on line {seen[name]}"))
            seen.setdefault(name, line)
            lines[(*path, name)] = line
            _walk(value, (*path, name), file, lines, faults)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, index), file, lines, faults)
