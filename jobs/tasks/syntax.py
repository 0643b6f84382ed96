"""The trees of the grammar of `sentences.py`: on which word each word of a type of sentence depends.

Relations are those of Universal Dependencies (de Marneffe et al. 2021): a determiner and an adjective depend on their
noun, an auxiliary on its verb, the verb of a relative clause on the noun before it. The main verb is the root.
"""

from dataclasses import dataclass

from jobs.tasks.sentences import SentenceType

RELATIONS = ("acl", "advmod", "amod", "aux", "case", "det", "nmod", "nsubj", "obj")
ROOT = "root"


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a type: its tag, the place of its head among the words, and what it is to it."""

    tag: str
    head: int
    relation: str


def tree_of(one: SentenceType) -> tuple[Word, ...]:
    """Return the words of a type in their order; the root's head is itself."""
    verb = one.main + 1
    found = _noun_phrase(one.tags[: one.main], 0, verb, "nsubj")
    found |= {one.main: (verb, "aux"), verb: (verb, ROOT)}
    found |= _noun_phrase(one.tags[verb + 1 :], verb + 1, verb, "obj")
    return tuple(Word(tag, *found[place]) for place, tag in enumerate(one.tags))


def _noun_phrase(tags: str, first: int, head: int, relation: str) -> dict[int, tuple[int, str]]:
    """Return place → (head, relation) of a noun phrase that begins at `first`; its noun depends on `head`."""
    if not tags:
        return {}
    noun, rest = first + 1, first + 2
    found = {first: (noun, "det"), noun: (head, relation)}
    match tags[2:]:
        case "":
            return found
        case clause if clause[0] == "O":
            return found | {rest: (rest + 2, "case")} | _noun_phrase(clause[1:], rest + 1, noun, "nmod")
        case clause if clause[1] == "D":
            verb = rest + 4
            inner = {rest: (verb, "obj"), rest + 3: (verb, "aux")} | _noun_phrase(clause[1:3], rest + 1, verb, "nsubj")
        case clause:
            verb = rest + 2
            inner = {rest: (verb, "nsubj"), rest + 1: (verb, "aux")} | _noun_phrase(clause[3:], rest + 3, verb, "obj")
    return found | inner | {verb: (noun, "acl")}
