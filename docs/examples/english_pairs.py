"""Minimal pairs for the prose of documentation: the file beside the study `english`, made anew.

    python docs/examples/english_pairs.py jobs/studies/english-pairs.jsonl

Every pair differs in one word or in the order of two, has equally many words, and is made of words that documentation
uses. Five phenomena, as in BLiMP (Warstadt et al. 2020), whose own sentences are about people and places.
"""

import json
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

NOUNS = ("array", "function", "method", "value", "object", "class", "file", "module", "number", "string")
PLURALS = {"class": "classes"}
VERBS = ("returns", "contains", "represents", "defines", "takes", "provides", "uses", "creates")
OBJECTS = ("the result", "a new index", "all of the data", "two arguments")


def plural(noun: str) -> str:
    return PLURALS.get(noun, noun + "s")


def agreement() -> Iterator[tuple[str, str]]:
    for (index, noun), verb in product(enumerate(NOUNS), VERBS[:4]):
        rest = OBJECTS[index % len(OBJECTS)]
        yield f"The {noun} {verb} {rest}.", f"The {noun} {verb[:-1]} {rest}."
        yield f"The {plural(noun)} {verb[:-1]} {rest}.", f"The {plural(noun)} {verb} {rest}."


def attractor() -> Iterator[tuple[str, str]]:
    for index, noun in enumerate(NOUNS):
        others = [plural(NOUNS[(index + shift) % len(NOUNS)]) for shift in (1, 2, 3, 4)]
        for other in others:
            yield f"The {noun} of the {other} is used.", f"The {noun} of the {other} are used."
            yield f"The {other} of the {noun} are used.", f"The {other} of the {noun} is used."


def determiner() -> Iterator[tuple[str, str]]:
    for noun in NOUNS:
        for one, many in (("This", "These"), ("That", "Those")):
            yield f"{one} {noun} is not used.", f"{one} {plural(noun)} is not used."
            yield f"{many} {plural(noun)} are not used.", f"{many} {noun} are not used."


def article() -> Iterator[tuple[str, str]]:
    for noun in NOUNS:
        right, wrong = ("an", "a") if noun[0] in "aeiou" else ("a", "an")
        for before in ("Return", "This is", "It takes", "The result is"):
            yield f"{before} {right} {noun}.", f"{before} {wrong} {noun}."


def order() -> Iterator[tuple[str, str]]:
    for noun, adjective in product(NOUNS, ("new", "given", "default", "same")):
        yield f"Return the {adjective} {noun}.", f"Return the {noun} {adjective}."


PHENOMENA = {
    "agreement": agreement,
    "attractor": attractor,
    "determiner": determiner,
    "article": article,
    "order": order,
}


def main(target: Path) -> None:
    """Write all pairs, phenomenon by phenomenon."""
    lines = (
        json.dumps({"good": good, "bad": bad, "phenomenon": name})
        for name, pairs in PHENOMENA.items()
        for good, bad in pairs()
    )
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
