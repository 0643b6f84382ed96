"""The filter of the runs' table: short text → the WHERE of one SELECT, the same for the rows and for their groups.

    status=diverged width>=16 seed_init<4 score>0.9 "some text" -status=finished

A term is COLUMN OPERATOR VALUE, or a text that any column may contain; a minus before it turns it round. A factor goes
by its last part (`width` for `model.width`) where that is clear. Names and values become quoted SQL, never SQL.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.errors import QueryError
from orchestrator.dashboard.questions import name, text

_TERM = re.compile(
    r"""\s*(?P<minus>-)?(?:(?P<column>[^\s=<>!~"]+)\s*(?P<operator><=|>=|!=|=|<|>|~)\s*)?"""
    r"""(?:"(?P<quoted>[^"]*)"|(?P<word>[^\s"]+))""",
)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_MOST_TERMS = 30


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that can be filtered: name → whether it holds numbers."""

    numeric: Mapping[str, bool]

    def find(self, asked: str) -> str:
        """Return the column that `asked` means; raises QueryError where none or several do."""
        if asked in self.numeric:
            return asked
        found = [column for column in self.numeric if column.rpartition(".")[2] == asked]
        if len(found) == 1:
            return found[0]
        told = f"may mean {', '.join(found)}" if found else f"is none of {', '.join(self.numeric)}"
        raise QueryError(f"the column {asked!r} {told}")


def where(filter_text: str, columns: Columns, searched: Sequence[str]) -> str:
    """Return an SQL condition that is true for the rows that pass; raises QueryError with the term that is wrong."""
    terms: list[str] = []
    rest = filter_text.strip()
    while rest:
        match = _TERM.match(rest)
        if match is None:
            raise QueryError(
                f"the filter cannot be read from {rest[:40]!r} on: a text ends with the sign it began with"
            )
        rest = rest[match.end() :].strip()
        term = _term(match, columns, searched)
        terms.append(f"NOT coalesce({term}, false)" if match["minus"] else term)
        if len(terms) > _MOST_TERMS:
            raise QueryError(f"a filter has at most {_MOST_TERMS} terms")
    return " AND ".join(terms) or "true"


def _term(match: re.Match[str], columns: Columns, searched: Sequence[str]) -> str:
    value = match["word"] if match["quoted"] is None else match["quoted"]
    if match["column"] is None:
        return "(" + " OR ".join(f"contains(lower({name(c)}::VARCHAR), {text(value.lower())})" for c in searched) + ")"
    column, operator = columns.find(match["column"]), match["operator"]
    if operator == "~":
        return f"contains(lower({name(column)}::VARCHAR), {text(value.lower())})"
    if columns.numeric[column]:
        if not _NUMBER.fullmatch(value):
            raise QueryError(f"{column} holds numbers, and {value!r} is none")
        return f"{name(column)} {operator} {value}"
    return f"{name(column)}::VARCHAR {operator} {text(value)}"
