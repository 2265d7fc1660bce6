"""Several tokens of an answer in one step, where that pays: drafts, which the model checks (speculative decoding).

A step reads all the weights, for one token of an answer or for several: so these cost less together than one by one.
Drafts (draft.py) go through the model behind the answer's last token. Then tokens are drawn one after the other, each
from what the model says where it stands, by the same sampler and of the same form as without drafts, up to the first
that is not the drafted one; what was drafted beyond it is cut from the KV cache. So drafts change how fast an answer
comes and not what it says, if tokens of a conversation add up together as they do one by one. Up to how many do is
tried when a model is loaded (step_costs.py), and no more are put into a step, but for types that are INEXACT anyway
(model.py).

How many tokens are drafted follows from what a step costs by its rows, and from how often such drafts were right of
late, in this answer and in all; that is looked at whether or not they are tried. Answers under way share a step, so
every one of them has to gain by it. Of each an account is kept, of what drafts have gained and, for those that were not
tried, of what they might have: no draft is tried that could cost more, STAKE steps to begin with.
"""

import logging
import time
from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import NamedTuple
from weakref import WeakKeyDictionary

from llama.draft import LENGTHS, MODEL, Answering, Draft, DraftModel, Lookup
from llama.model import BATCH, LlamaModel
from llama.step_costs import probe
from llama.turn import Turn

ROWS = (2, 4, 8, 16, 32)  # of an answer in a step: its last token and a draft, in numbers that kernels like
GAIN = 1.1  # how much faster an answer has to come for a draft to be tried: estimates are off by as much
STAKE, MOST = 1.0, 16.0  # steps of one token that a draft may cost an answer to begin with, and after gains
EARNED = 0.3  # steps that a token earns which would have been right, had it been tried
TRIAL = 32.0  # tokens of a draft model that are tried in any case
PATIENCE = 64  # times in a row that a draft model has nothing to offer, after which it is switched off

# How often a token is right that is drafted behind so many that stood before, until that is known: as in SmolLM2's
# answers to benchmarks/speculation_tasks.py. Of a draft model it is a guess.
CHANCES = {8: 0.95, 4: 0.8, 3: 0.5, 2: 0.45, 1: 0.3, MODEL: 0.7}
FIRST_WEIGHT, SHARED_WEIGHT = 8.0, 3.0  # tries that these weigh like, and those in all answers in a single one
SHARED_DECAY, OWN_DECAY = 0.995, 0.95  # what of a try is left by the next

# What speaks for each of a draft's tokens when all before it were right.
REACHED = {
    MODEL: [MODEL] * (ROWS[-1] - 1),
    **{by: [next(length for length in LENGTHS if length <= by + i) for i in range(ROWS[-1] - 1)] for by in LENGTHS},
}

logger = logging.getLogger(__name__)


class Chance:
    """How often something was right of late."""

    def __init__(self, decay: float, right: float = 0.0, tries: float = 0.0) -> None:
        """Begin with so many right of so many tries; with each other one they weigh less by `decay`."""
        self._decay, self.right, self.tries = decay, right, tries

    def add(self, right: bool) -> None:
        """Count a try."""
        self.right = self.right * self._decay + right
        self.tries = self.tries * self._decay + 1

    def share(self, other: float = 0.0, weight: float = 0.0) -> float:
        """Return how many were right, with `weight` tries more that were right as often as `other` says."""
        return (self.right + weight * other) / (self.tries + weight)


class Answer:
    """What is known of an answer under way."""

    def __init__(self, account: float) -> None:
        """Nothing yet, and so many seconds that drafts may lose."""
        self.lookup = Lookup()
        self.chances: dict[int, Chance] = {}
        self.account = account

    def gain(self, seconds: float, most: float) -> None:
        """Put what was gained into the account, which holds no more than `most` seconds; or take what was lost."""
        self.account = min(self.account + seconds, most)


class Tried(NamedTuple):
    """A step's drafts."""

    answers: Sequence[Answering]
    found: Sequence[Draft | None]  # for each, whether or not it is tried; empty where that was not looked for
    drafts: Sequence[Draft]  # one each and equally long, or none
    began: float
    drafted: float  # when drafts were there

    @property
    def length(self) -> int:
        """Tokens of each draft."""
        return len(self.drafts[0].tokens) if self.drafts else 0


class Speculation:
    """Which drafts are tried in a model's steps, and what comes of them."""

    def __init__(self, model: LlamaModel, draft_model: DraftModel | None = None) -> None:
        """Draft for a model that can_cut, and by another one too if it is given. Takes a few steps' time."""
        self._model, self._draft_model = model, draft_model
        alike, self._costs = probe(model)
        self._most = BATCH if model.inexact else alike  # rows in a step with drafts
        self._answers: WeakKeyDictionary[Turn, Answer] = WeakKeyDictionary()
        self._chances = {by: Chance(SHARED_DECAY, FIRST_WEIGHT * p, FIRST_WEIGHT) for by, p in CHANCES.items()}
        self._draft_account = PATIENCE * self._costs.of(1)
        self._idle = 0  # times in a row that the draft model had nothing to offer

    @property
    def allowed(self) -> bool:
        """Whether drafts leave the model's answers as they are, or as they are in company where it is INEXACT."""
        return self._most >= ROWS[0]

    def draft(self, answers: Sequence[Answering]) -> Tried:
        """Return what is tried in the next step of these answers."""
        began = time.perf_counter()
        found = [self._find(answering) for answering in answers] if self._may_pay(len(answers)) else []
        drafts = [draft for draft in found if draft]
        count = self._count(answers, drafts) if len(drafts) == len(answers) else 0
        drafts = self._written(answers, drafts, count) if count else []
        return Tried(answers, found, drafts, began, time.perf_counter())

    def learn(self, tried: Tried, accepted: Sequence[int]) -> None:
        """Take in how many tokens of each draft were right, when the step has been taken."""
        now, answers = time.perf_counter(), len(tried.answers)
        self._costs.learn(answers * (1 + tried.length), now - tried.drafted)
        plain = self._costs.of(answers)
        if not tried.length:
            self._look_back(tried, plain)
            return
        for answering, draft, right in zip(tried.answers, tried.drafts, accepted, strict=True):
            for index, by in enumerate(REACHED[draft.by][: min(right + 1, tried.length)]):
                self._add(answering.turn, by, index < right)
            gained = plain * (1 + right) - (now - tried.began)
            self._answers[answering.turn].gain(gained, MOST * plain)
            if draft.by == MODEL:
                self._draft_account = min(self._draft_account + gained, PATIENCE * plain)
        if self._draft_account < 0:
            self._switch_off()

    def close(self) -> None:
        """Free the draft model."""
        if self._draft_model:
            self._draft_model.close()
            self._draft_model = None

    def _may_pay(self, answers: int) -> bool:
        """Return whether so many answers could come faster if all that is drafted were right."""
        plain = GAIN * self._costs.of(answers)
        return any(plain * rows > self._costs.of(answers * rows) for rows in ROWS)

    def _find(self, answering: Answering) -> Draft | None:
        """Return the better draft for an answer; that of the draft model is still to be written."""
        answer = self._answers.get(answering.turn)
        if answer is None:
            answer = self._answers[answering.turn] = Answer(STAKE * self._costs.of(1))
        answer.lookup.read(answering.tokens_from(answer.lookup.length))
        found = answer.lookup.draft(ROWS[-1] - 1)
        if not self._draft_model or answering.length + ROWS[-1] > self._draft_model.context:
            return found
        better = not found or self._chance(answer, MODEL) > self._chance(answer, found.by)
        return Draft([], MODEL) if better else found

    def _count(self, answers: Sequence[Answering], drafts: Sequence[Draft]) -> int:
        """Return how many tokens of each are worth trying."""
        modelled = any(draft.by == MODEL for draft in drafts)
        token = self._draft_model.costs.of(len(answers)) if self._draft_model and modelled else 0.0
        plain, room = self._costs.of(len(answers)), min(answering.turn.left for answering in answers)
        expected = [self._expected(a.turn, draft.by) for a, draft in zip(answers, drafts, strict=True)]
        account = min(self._answers[answering.turn].account for answering in answers)
        best, fastest = 0, 0.0
        for rows in ROWS:
            if rows > room or len(answers) * rows > self._most:
                break
            seconds = self._costs.of(len(answers) * rows) + (rows - 1) * token
            tokens = [each[rows - 1] for each in expected]
            if min(tokens) * plain < GAIN * seconds or seconds - plain > account:
                continue
            if sum(tokens) / seconds > fastest:
                best, fastest = rows - 1, sum(tokens) / seconds
        if modelled and not best and self._on_trial:
            return int(room >= ROWS[0] and len(answers) * ROWS[0] <= self._most)
        if modelled:
            self._idle = 0 if best else self._idle + 1
            if self._idle >= PATIENCE:
                self._switch_off()
        return best

    @property
    def _on_trial(self) -> bool:
        """Whether it is not known yet how often the draft model is right."""
        return self._chances[MODEL].tries < FIRST_WEIGHT + TRIAL

    def _written(self, answers: Sequence[Answering], drafts: Sequence[Draft], count: int) -> list[Draft]:
        """Return the drafts with so many tokens each."""
        modelled = [answering for answering, draft in zip(answers, drafts, strict=True) if draft.by == MODEL]
        written = iter(self._draft_model.draft(modelled, count) if self._draft_model and modelled else [])
        return [Draft(next(written) if by == MODEL else tokens[:count], by) for tokens, by in drafts]

    def _expected(self, turn: Turn, by: int) -> list[float]:
        """Return how many tokens a step is likely to give with no token of a draft, with one, with two and so on."""
        answer = self._answers[turn]
        chances = {length: self._chance(answer, length) for length in set(REACHED[by])}
        return list(accumulate(accumulate((chances[length] for length in REACHED[by]), mul), initial=1.0))

    def _chance(self, answer: Answer, by: int) -> float:
        """Return how likely a token is right that so many tokens speak for."""
        own = answer.chances.get(by)
        return own.share(self._chances[by].share(), SHARED_WEIGHT) if own else self._chances[by].share()

    def _look_back(self, tried: Tried, plain: float) -> None:
        """See whether what was found and not tried would have been right, where a step takes so many seconds."""
        for (turn, *_), draft in zip(tried.answers, tried.found, strict=False):
            if draft and draft.tokens and not turn.finished:
                right = draft.tokens[0] == turn.token
                self._add(turn, draft.by, right)
                self._answers[turn].gain(EARNED * right * plain, MOST * plain)

    def _add(self, turn: Turn, by: int, right: bool) -> None:
        self._chances[by].add(right)
        self._answers[turn].chances.setdefault(by, Chance(OWN_DECAY)).add(right)

    def _switch_off(self) -> None:
        """Do without the draft model from now on."""
        if self._draft_model:
            taken, right = self._draft_model.costs.of(1) / self._costs.of(1), self._chances[MODEL].share()
            why = f"a token takes {taken:.0%} of one without it, and {right:.0%} are right"
            logger.warning("%s: the draft model %s does not pay: %s", self._model.path.stem, self._draft_model, why)
            self.close()
