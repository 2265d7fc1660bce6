"""What the kept rows of two files cannot tell, more rows may: both files are measured on them until they do.

By the evaluation's own functions, with its cache, on the new file's rows and questions in their order, and on all of
its pairs of answers, and its general texts where they count. What either evaluation has kept is not measured again.
"""

import logging
import math
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, cached_property

import llama_cpp

from common.errors import UserError
from common.words import counted
from llama.model import Weights
from pipeline.comparison.pairs import Judgement, Measurable, Side, judge
from pipeline.core.config import CompareSettings
from pipeline.core.paths import PREPARED, ROWS
from pipeline.data.grading import is_right
from pipeline.evaluation.general import all_sets, by_set, general_tokens
from pipeline.evaluation.inputs import Extent, Material
from pipeline.evaluation.measure import file_nats, file_replies
from pipeline.evaluation.measurement_cache import MeasurementCache
from pipeline.evaluation.preferences import answers, pair_digests, preferred
from pipeline.report.rows import ModelRows, Nats, RowResults, digests
from pipeline.statistics.paired import Finding, Paired

logger = logging.getLogger(__name__)

LEAST = 50  # rows before it is first looked
OTHER_WORDS = "the two files split texts into other tokens, or have another chat template"


@dataclass(frozen=True)
class Meter:
    """Measures one of them as far as it is asked, and reads what is known of it."""

    file: Measurable
    rows: RowResults  # in whose order
    material: Material
    cache: MeasurementCache
    weights: Callable[[], Weights]

    @cached_property
    def known_nats(self) -> dict[str, float | None]:
        """Nats by row, where the row was split into as many tokens."""
        if not (side := self.file.side):
            return {}
        tokens = dict(zip(self.rows.rows, self.rows.tokens, strict=True))
        known = zip(side.rows.rows, side.rows.tokens, side.found.nats, strict=False)
        return {row: nats for row, count, nats in known if tokens.get(row) == count}

    @cached_property
    def known_right(self) -> dict[str, bool]:
        """Whether the reply was right, by question."""
        side = self.file.side
        return dict(zip(side.rows.questions, side.found.right, strict=False)) if side else {}

    @cached_property
    def preferred(self) -> dict[str, bool | None]:
        """Whether the chosen answer is likelier, by pair; those of the material that are not known are measured."""
        side, pairs = self.file.side, self.material.pairs
        known = dict(zip(side.rows.pairs, side.found.preferred, strict=True)) if side else {}
        missing = {
            name: pair for name, pair in zip(pair_digests(self.material), pairs, strict=True) if name not in known
        }
        if missing:
            part = replace(self.material, pairs=tuple(missing.values()))
            known |= zip(missing, preferred(self._all_nats("preferences", answers(part)), part), strict=True)
        return {name: known[name] for name in self.rows.pairs if name in known}

    @cached_property
    def general(self) -> dict[str, Nats]:
        """Nats of general texts, by set; sets of the material that are not known are measured."""
        known: dict[str, Nats] = {}
        if side := self.file.side:
            same = [name for name, tokens in side.rows.general.items() if tokens == self.rows.general.get(name)]
            known = {name: side.found.general[name] for name in same}
        missing = {name: texts for name, texts in self.material.general.items() if texts and name not in known}
        if missing:
            part = replace(self.material, general=missing)
            found = by_set(self._all_nats("general", all_sets(part)), part)
            known |= {name: tuple(nats) for name, nats in found.items()}
        return known

    def measured(self, extent: Extent) -> Side:
        """Return what is found of the first so many rows and questions, and of all pairs and general texts."""
        found = ModelRows(
            nats=self._nats(extent.rows),
            right=self._right(extent.questions),
            items=self.file.side.found.items if self.file.side else {},
            general=self.general,
            preferred=tuple(self.preferred.values()),
        )
        texts = {name: tokens for name, tokens in self.rows.general.items() if name in self.general}
        update = {"models": {self.file.name: found}, "pairs": tuple(self.preferred), "general": texts}
        return Side(self.rows.model_copy(update=update), self.file.name)

    def _all_nats(self, kind: str, texts: Material) -> list[float | None]:
        extent = Extent(len(texts.conversations), 0)
        return file_nats(f"{self.file.name}-{kind}", self.weights, self.file.sha256, texts, self.cache, extent)

    def _nats(self, count: int) -> tuple[float | None, ...]:
        known, all_rows = self.known_nats, self.material.conversations
        missing = [one for one in all_rows[:count] if one.digest not in known]
        if missing:
            rest = [one for one in all_rows if one not in missing]  # among which may be the longest
            part, extent = replace(self.material, conversations=[*missing, *rest]), Extent(len(missing), 0)
            nats = file_nats(self.file.name, self.weights, self.file.sha256, part, self.cache, extent)
            known |= zip((one.digest for one in missing), nats, strict=True)
        return tuple(known[one.digest] for one in all_rows[:count])

    def _right(self, count: int) -> tuple[bool, ...]:
        known, names, questions = self.known_right, self.rows.questions, self.material.questions
        missing = [place for place in range(count) if names[place] not in known]
        if missing:
            rest = [place for place in range(len(names)) if place not in set(missing)]
            part = replace(self.material, questions=[questions[place] for place in (*missing, *rest)])
            extent = Extent(0, len(missing))
            replies = file_replies(self.file.name, self.weights, self.file.sha256, part, self.cache, extent)
            for place, reply in zip(missing, replies, strict=True):
                known[names[place]] = is_right(questions[place], reply["reply"])
        return tuple(known[name] for name in names[:count])


def settle(
    new: Measurable,
    old: Measurable,
    settings: CompareSettings,
    enough: Collection[Finding],
    material: Material,
    measurements: MeasurementCache,
) -> Judgement:
    """Return what is said of a new file against an old one, by as many rows as it takes.

    Args:
        new: with what its evaluation has kept.
        old: with the same, or without.
        settings: conf/compare's.
        enough: findings at which measuring ends.
        material: what the new one was evaluated on.
        measurements: of that evaluation.

    Raises:
        UserError: the material is another one; a file cannot be loaded.
    """
    if new.side is None:
        raise UserError(f"of {new.path.name} no row was measured; run `dvc repro` first")
    rows = new.side.rows
    require_same(rows, material)
    if settings.quality != "preference":  # general texts count by it alone
        material = replace(material, general={})
    with ExitStack() as stack:

        def meter(one: Measurable) -> Meter:
            return Meter(one, rows, material, measurements, cache(lambda: stack.enter_context(Weights(one.path))))

        ours, theirs = meter(new), meter(old)
        alike = words(ours.weights()) == words(theirs.weights())
        if not alike:
            theirs = replace(theirs, material=replace(material, pairs=(), general={}))
        most = Extent(len(rows.rows) if alike else 0, len(rows.questions) if settings.quality != "loss" else 0)
        extent, further = Extent(-1, -1), _kept(ours, theirs, most)
        while further != extent:
            extent = further
            judgement = judge(ours.measured(extent), theirs.measured(extent), settings)
            said = f"{counted(extent.rows, 'row')} and {counted(extent.questions, 'question')}"
            logger.info(f"on {said}: {judgement.finding}")
            told = judgement.finding in enough and not _is_blind(judgement, extent, most)
            told = told or (judgement.hopeless and "no worse" not in enough)
            further = extent if told else _further(judgement, extent, most)
    return judgement if alike else replace(judgement, apart=(*judgement.apart, OTHER_WORDS))


def require_same(rows: RowResults, material: Material) -> None:
    """See to it that the material is what was evaluated.

    Raises:
        UserError: its rows, their tokens, or its questions are others.
    """
    found = [one.digest for one in material.conversations], material.scored, list(digests(material.questions))
    general = {name: tuple(tokens) for name, tokens in general_tokens(material).items()}
    rest = pair_digests(material), general
    if found != (list(rows.rows), list(rows.tokens), list(rows.questions)) or rest != (rows.pairs, rows.general):
        raise UserError(f"{PREPARED}, as conf/evaluate takes it, is not what {ROWS} is of; run `dvc repro` first")


def words(weights: Weights) -> tuple[bytes | None, tuple[bytes, ...]]:
    """Return a file's chat template and the texts of its tokens."""
    tokens = range(llama_cpp.llama_vocab_n_tokens(weights.vocabulary))
    texts = tuple(llama_cpp.llama_vocab_get_text(weights.vocabulary, token) for token in tokens)
    return llama_cpp.llama_model_chat_template(weights.model, None), texts


def _kept(new: Meter, old: Meter, most: Extent) -> Extent:
    """Return how many rows and questions are known of both, as far as they count."""
    rows, questions = new.known_nats.keys() & old.known_nats, new.known_right.keys() & old.known_right
    return Extent(min(len(rows), most.rows), min(len(questions), most.questions))


def _is_blind(judgement: Judgement, extent: Extent, most: Extent) -> bool:
    """Return whether a figure that could still be measured may be worse unseen: its rows are too few for any bounds."""
    if judgement.finding == "worse":
        return False
    unknown = all(math.isinf(one.low) for one in judgement.figures if one.of == "row")
    asked = {one.finding for one in judgement.figures if one.figure == "accuracy"}
    few = not extent.questions or (judgement.quality == "preference" and "cannot tell" in asked)
    return (unknown and extent.rows < most.rows) or (few and extent.questions < most.questions)


def _further(judgement: Judgement, extent: Extent, most: Extent) -> Extent:
    """Return how much to measure before it is looked again: rows first, then questions, which take longer."""
    found = {one.figure: one for one in judgement.figures}
    no_worse_will_do = judgement.quality == "preference"
    rows = _wanted(extent.rows, most.rows, found.get("loss"), no_worse_will_do)
    if rows > extent.rows:
        return Extent(rows, extent.questions)
    return Extent(extent.rows, _wanted(extent.questions, most.questions, found.get("accuracy"), no_worse_will_do))


def _wanted(have: int, total: int, found: Paired | None, no_worse_will_do: bool) -> int:
    """Return how many rows to measure; as many as there are where more can tell nothing."""
    if have and (found is None or _is_told(found, no_worse_will_do)):
        return have
    more = (found and found.more) or have
    return max(have, min(total, max(LEAST, have + min(more, have))))  # twice as many at most, since `more` may be off


def _is_told(found: Paired, no_worse_will_do: bool) -> bool:
    """Return whether more rows would say the same: of one that is no worse, where it is hardly better either."""
    if found.finding == "no worse":
        return no_worse_will_do or found.high <= found.margin
    return found.finding != "cannot tell"
