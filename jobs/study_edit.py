"""A study file with more seeds or more grid values: the text changed in one place, comments and all else kept."""

from collections.abc import Mapping
from typing import Any

import yaml

from jobs.errors import Fault, StudyError
from jobs.identity import canonical_json


def extended(text: str, file: str, more_seeds: Mapping[str, int], values: Mapping[str, list[Any]]) -> str:
    """Return `text` with counts of `seeds:` raised (by name: count, init, data) and values added to factors.

    Raises StudyError where there is no such count, or no such factor in a grid of one block.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    edits: list[tuple[int, int, str]] = []
    for name, more in more_seeds.items():
        node = _below(root, ["seeds", name])
        if not isinstance(node, yaml.ScalarNode) or not node.value.isdigit():
            raise StudyError((Fault(file, 0, f"seeds.{name}", "is no number of seeds that could be raised"),))
        edits.append((node.start_mark.index, node.end_mark.index, str(int(node.value) + more)))
    for factor, added in values.items():
        node = _below(root, ["grid", factor])
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            raise StudyError((Fault(file, 0, f"grid.{factor}", "is no factor with values that could be added to"),))
        last = node.value[-1].end_mark.index
        written = [canonical_json(value).decode() for value in added]
        column = node.value[-1].start_mark.column - 2
        joined = ", " if node.flow_style else f"\n{' ' * column}- "
        edits.append((last, last, "".join(joined + value for value in written)))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _below(node: yaml.Node | None, keys: list[str]) -> yaml.Node | None:
    for key in keys:
        if not isinstance(node, yaml.MappingNode):
            return None
        node = next((value for name, value in node.value if name.value == key), None)
    return node
