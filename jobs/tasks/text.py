"""Language modelling on real text: the next token, in corpora that `seedbed tokenize` made.

Sample `p` of a run is a pure function of its data seed and `p`, whatever the number of workers: an order without a
table over sequences, an epoch at a time (`jobs/text/order.py`), and for several corpora exact shares of each step.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, model_validator

from jobs.errors import Corrupt, TaskError
from jobs.scalar import Curve, NonNegativeScalar
from jobs.seeds import Streams, stream
from jobs.tasks.task import IGNORE, Batch, Mean, Score, Task, Tokens
from jobs.tasks.text_probes import (
    Name,
    Planted,
    TextProbes,
    class_measures,
    classes_in,
    extraction_scores,
    extraction_set,
    pair_scores,
    pair_set,
    pairs_in,
)
from jobs.text.classes import Classes
from jobs.text.corpus import BYTES, Corpus, CorpusInfo, Place, find_corpus, open_corpus
from jobs.text.mixture import Mixture
from jobs.text.order import Order
from jobs.text.planted import PlantedOrder
from jobs.text.small_file import find_file, read_file

_PINNED = "sha256:"
_MEMORISED = "memorised."
Names = Annotated[dict[Name, str], Field(min_length=1)]


class Text(Task):
    """Predict each next token of sequences of `context` tokens.

    Documents follow each other, the end-of-document token between them, and sequences are cut from that row. A
    corpus is named by its folder, by a path from the study's own folder, or by an address such as s3://bucket/prefix;
    the identity of a run holds its digest instead.

    corpora    name → what is trained on; several are mixed
    weights    name → its weight in the mixture, a number or a function of the step; a name left out has 1
    evaluate   name → corpora that are only measured on
    test_size  sequences of each corpus that are measured; those of `corpora` are never trained on
    documents  `apart`: the first token of a document is not asked for after the end of another
    planted    sequences that are shown exactly so often; None: none
    probes     what is measured beside loss and single tokens
    """

    added_later: ClassVar[frozenset[str]] = frozenset({"planted", "probes"})

    corpora: Names
    context: Annotated[int, Field(ge=1)]
    weights: dict[Name, NonNegativeScalar] = Field(default_factory=dict)
    evaluate: dict[Name, str] = Field(default_factory=dict)
    test_size: Annotated[int, Field(ge=1)] = 64
    documents: Literal["joined", "apart"] = "joined"
    planted: Planted | None = None
    probes: TextProbes = TextProbes()
    _addresses: dict[str, str] = PrivateAttr(default_factory=dict)
    _texts: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        for name in self.weights:
            if name not in self.corpora:
                raise ValueError(f"weights: {name!r} is none of the corpora {', '.join(self.corpora)}")
        for name in self.evaluate:
            if name in self.corpora:
                raise ValueError(f"evaluate: {name!r} is trained on, and measured on what is held out of it")
        for name in self.probes.pairs:
            if name in self.corpora or name in self.evaluate:
                raise ValueError(f"probes.pairs: {name!r} is the name of a corpus, too: its metrics would meet")
        if self.planted is not None and self.planted.corpus not in self.corpora:
            raise ValueError(f"planted: {self.planted.corpus!r} is none of the corpora {', '.join(self.corpora)}")
        memorised = self.probes.memorised
        if memorised is not None and memorised.length > self.context + 1:
            told = f"{memorised.length} tokens of prompt and continuation, and a sequence has {self.context + 1}"
            raise ValueError(f"probes.memorised: {told}")
        return self

    def pinned(self, folder: Path) -> tuple[Self, tuple[Place, ...]]:
        """Return the task with the digests of its corpora and files, and where they lie.

        Raises TaskError where the corpora have not one tokenizer, or one is no longer than what is held out of it;
        TextRefused for a file that is not what it should be.
        """
        files = {named: find_file(named, folder) for named in self.probes.files()}
        found = {named: find_corpus(named, folder) for named in (*self.corpora.values(), *self.evaluate.values())}
        pinned = self.model_copy(
            update={
                "corpora": {name: found[named].digest for name, named in self.corpora.items()},
                "evaluate": {name: found[named].digest for name, named in self.evaluate.items()},
                "probes": self.probes.pinned({named: file.digest for named, file in files.items()}),
            }
        )
        places = (*found.values(), *files.values())
        pinned.bound({place.digest: place.url for place in places}.__getitem__).check()
        return pinned, places

    def bound(self, where: Callable[[str], str]) -> Self:
        """Return the task with the addresses of its corpora and files."""
        named = (*self.corpora.values(), *self.evaluate.values(), *self.probes.files())
        bound = self.model_copy()
        bound._addresses = {one: where(one) if one.startswith(_PINNED) else one for one in named}  # noqa: SLF001
        return bound

    def check(self) -> None:
        """Raise TaskError where the corpora do not go together, or are too short; TextRefused for a wrong file."""
        first = self._first.info
        for name in (*self.corpora, *self.evaluate):
            corpus = self._corpus(name)
            if (corpus.info.tokenizer, corpus.info.vocabulary) != (first.tokenizer, first.vocabulary):
                raise TaskError("text", "", -1, f"{name} was tokenized otherwise than {next(iter(self.corpora))}")
            held_out, memorised = self._held_out(name), self.probes.memorised
            trained = 0 if name in self.evaluate else memorised.sequences if memorised else 1
            if corpus.count(self.context) < held_out + trained:
                told = f"{name} has {corpus.count(self.context)} sequences of {self.context} tokens: not enough for"
                planted = f" and {held_out - self.test_size} planted ones" if held_out > self.test_size else ""
                raise TaskError("text", "", -1, f"{told} a test_size of {self.test_size}{planted}")
        for name in self.probes.pairs:
            self._pair_set(name)
        self._classes()

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return bytes as hexadecimal digits and the end of a document; other tokens by their ids."""
        return _vocabulary(self._first.info.tokenizer, self._first.info.vocabulary)

    @property
    def length(self) -> int:
        """Return `context`."""
        return self.context

    def batch(self, streams: Streams, step: int, size: int) -> Batch:
        """Return the next `size` samples; of several corpora, each step's share, in an order of its own."""
        names, mixture = self._mixture(size)
        before, after = mixture.taken(step), mixture.taken(step + 1)
        parts = [
            self._rows(name, streams, size, int(start), int(stop))
            for name, start, stop in zip(names, before, after, strict=True)
        ]
        rows = np.concatenate(parts)
        if len(names) > 1:
            rows = rows[streams.data(step).permutation(size)]
        return self._ask(rows)

    def held_out(self, streams: Streams) -> dict[str, Batch]:
        """Return `test_size` sequences of each corpus under its name, none of them ever trained on."""
        found = {}
        for name in sorted((*self.corpora, *self.evaluate)):
            places = self.order(name, streams).never_shown(self.test_size)
            found[name] = self._ask(self._corpus(name).sequences(places, self.context))
        pairs = {name: self._pair_set(name) for name in self.probes.pairs}
        return found | pairs | dict(self._extraction_sets(streams))

    def measure(self, name: str, batch: Batch, predicted: Tokens, losses: NDArray[np.float32]) -> list[Score | Mean]:
        """Return single tokens and classes of them for a corpus; for the other sets what they are made for."""
        if name in self.probes.pairs:
            return [*pair_scores(name, pairs_in(self._text(self.probes.pairs[name]), name), losses)]
        if name.startswith(_MEMORISED):
            return [*extraction_scores(name, batch, predicted)]
        return [
            *self.score(name, batch, predicted),
            *class_measures(name, batch, predicted, losses, self._classes()),
        ]

    def score(self, name: str, batch: Batch, predicted: Tokens) -> list[Score]:
        """Return how many single tokens were predicted; whole sequences never are."""
        asked = batch.targets != IGNORE
        return [Score(f"{name}.token_accuracy", int(((predicted == batch.targets) & asked).sum()), int(asked.sum()))]

    def order(self, name: str, streams: Streams) -> Order:
        """Return the order in which a run shows the sequences of the corpus `name`."""
        digest = self._corpus(name).info.digest
        size = self._corpus(name).count(self.context)
        held_out = self._held_out(name) if name in self.corpora else 0
        return Order(size, held_out, streams.seeds.data, streams.seeds.evaluation, f"text/{digest}")

    def exposures(self, name: str, streams: Streams, sequences: Tokens, step: int, size: int) -> Tokens:
        """Return how often a run has trained on sequences of the corpus `name` before `step`, int64 [sequence].

        Computed, not counted: it costs the same for step 10 and step 10^9, save for the shares of a mixture.
        """
        taken = self._taken(name, step, size)
        planted = self._planted(name, streams, size)
        return (planted or self.order(name, streams)).exposures(sequences, taken)

    def planted_exposures(self, streams: Streams, step: int, size: int) -> Tokens:
        """Return how often a run has trained on each planted sequence before `step`, int64 [planted]."""
        name = self.planted.corpus if self.planted else ""
        planted = self._planted(name, streams, size)
        return planted.planted_exposures(self._taken(name, step, size)) if planted else np.empty(0, np.int64)

    def planted_sequences(self, streams: Streams) -> Tokens:
        """Return the planted sequences, int64 [planted, context + 1]; the same for all runs of a study."""
        if self.planted is None:
            return np.empty((0, self.context + 1), np.int64)
        corpus, count = self._corpus(self.planted.corpus), len(self.planted.per_sequence)
        if self.planted.of == "random":
            return _random_rows(streams.seeds.evaluation, corpus.info, count, self.context + 1)
        held_out = self.order(self.planted.corpus, streams).never_shown(self.test_size + count)
        return corpus.sequences(held_out[self.test_size :], self.context)

    def _planted(self, name: str, streams: Streams, size: int) -> PlantedOrder | None:
        """Return the order of a corpus with what is planted in it; None where nothing is."""
        if self.planted is None or self.planted.corpus != name:
            return None
        samples = self._taken(name, self.planted.steps, size)
        return PlantedOrder(self.order(name, streams), self.planted.per_sequence, samples)

    def _rows(self, name: str, streams: Streams, size: int, start: int, stop: int) -> Tokens:
        """Return the samples `start` up to `stop` of a corpus, [samples, context + 1]."""
        corpus, planted = self._corpus(name), self._planted(name, streams, size)
        if planted is None:
            return corpus.sequences(self.order(name, streams).span(start, stop), self.context)
        places = planted.span(start, stop)
        own = places < planted.order.size
        rows = np.empty((len(places), self.context + 1), np.int64)
        rows[own] = corpus.sequences(places[own], self.context)
        if not own.all():
            rows[~own] = self.planted_sequences(streams)[places[~own] - planted.order.size]
        return rows

    def _taken(self, name: str, step: int, size: int) -> int:
        names, mixture = self._mixture(size)
        return int(mixture.taken(step)[names.index(name)])

    def _held_out(self, name: str) -> int:
        """Return how many sequences of a corpus are not shown as others are."""
        planted = self.planted is not None and self.planted.of == "text" and self.planted.corpus == name
        return self.test_size + (len(self.planted.per_sequence) if planted and self.planted else 0)

    def _extraction_sets(self, streams: Streams) -> Iterator[tuple[str, Batch]]:
        """Yield the sets of k-extraction: of each corpus what is trained on and what is not, and what is planted."""
        rule = self.probes.memorised
        if rule is None:
            return
        for name in self.corpora:
            order, corpus = self.order(name, streams), self._corpus(name)
            for kind, places in (
                ("trained", order.always_shown(rule.sequences)),
                ("heldout", order.never_shown(min(rule.sequences, self.test_size))),
            ):
                rows = corpus.sequences(places, self.context)
                yield f"{_MEMORISED}{name}.{kind}", extraction_set(rows, rule)
        if self.planted is not None:
            rows, each = self.planted_sequences(streams), self.planted.each
            for number, count in enumerate(self.planted.counts):
                mine = rows[number * each : (number + 1) * each]
                yield f"{_MEMORISED}planted_{count}", extraction_set(mine, rule)

    def _text(self, named: str) -> str:
        """Return what is in a small file."""
        if named not in self._texts:
            address = self._addresses.get(named, named)
            pinned = named.startswith(_PINNED)
            self._texts[named] = read_file(address, named) if pinned else find_file(named, Path()).text
        return self._texts[named]

    def _pair_set(self, name: str) -> Batch:
        return pair_set(self._text(self.probes.pairs[name]), name, self._first, self.context)

    def _classes(self) -> Classes:
        named = self.probes.classes
        return classes_in(named, "" if named == BYTES else self._text(named), self._first) if named else {}

    def _mixture(self, size: int) -> tuple[list[str], Mixture]:
        """Return the names of what is mixed, in the mixture's order, and how."""
        names = sorted(self.corpora)
        return names, _mixture(tuple(self.weights.get(name, 1.0) for name in names), size)

    @property
    def corpus_info(self) -> CorpusInfo:
        """Return what the first of the corpora says of itself; their tokenizer is one."""
        return self._first.info

    def tokenizer_file(self) -> bytes:
        """Return the tokenizer.json of the corpora; empty for bytes."""
        return self._first.tokenizer_file()

    @property
    def _first(self) -> Corpus:
        return self._corpus(min(self.corpora))

    def _corpus(self, name: str) -> Corpus:
        named = self.corpora[name] if name in self.corpora else self.evaluate[name]
        corpus = open_corpus(self._addresses.get(named, named))
        if named.startswith(_PINNED) and corpus.info.digest != named:
            raise Corrupt(self._addresses[named], f"is another corpus than the study was made for ({named[:19]}…)")
        return corpus

    def _ask(self, rows: Tokens) -> Batch:
        inputs, targets = np.ascontiguousarray(rows[:, :-1]), rows[:, 1:].copy()
        if self.documents == "apart":
            targets[inputs == self._first.info.end] = IGNORE
        return Batch(inputs, targets)


# What a mixture has counted so far decides nothing: the cache saves counting again and changes no number.
@lru_cache(maxsize=64)
def _mixture(weights: tuple[float | Curve, ...], size: int) -> Mixture:
    return Mixture(weights, size)


# A pure function of its arguments: every batch is checked against the vocabulary, and 50,000 names take 5 ms to write.
@lru_cache(maxsize=8)
def _vocabulary(tokenizer: str, size: int) -> tuple[str, ...]:
    return (*(f"{byte:02x}" for byte in range(256)), "end") if tokenizer == BYTES else tuple(map(str, range(size)))


# A pure function of its arguments, which every batch with a planted sequence asks for.
@lru_cache(maxsize=8)
def _random_rows(evaluation: int, info: CorpusInfo, count: int, width: int) -> Tokens:
    drawn = stream(evaluation, f"evaluation/planted/{info.digest}").integers(0, info.vocabulary - 1, (count, width))
    return drawn + (drawn >= info.end)  # the end of a document is none of them
