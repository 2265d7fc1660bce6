"""Drafts: what they are, when they are tried, and that answers are those without them."""

import ctypes
import json
import logging
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import llama_cpp
import pytest
from tiny_gguf import write_random, write_scripted

from benchmarks import noise
from llama.batch import Batch
from llama.draft import LENGTHS, MODEL, Answering, Draft, DraftModel, Lookup, vocabulary
from llama.model import Entry, LlamaModel, Scored
from llama.speculation import PATIENCE, REACHED, ROWS, TRIAL, Speculation
from llama.step_costs import Costs
from llama.turn import Piece, Turn
from llama.types import Form, Sampling
from pipeline.gguf.quantize import quantize

CONTEXT = 512
KINDS = ("F16", "Q8_0", "Q4_K_M")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same random weights in three types; rows of 256 numbers, as K-quants want them."""
    folder = tmp_path_factory.mktemp("kinds")
    whole = write_random(folder / "F32.gguf", width=256)
    for kind in KINDS:
        quantize(whole, folder / f"{kind}.gguf", kind)
    return {kind: folder / f"{kind}.gguf" for kind in KINDS}


class Told(Speculation):
    """Drafts what it is told to, some of it wrong, whether or not it pays."""

    def __init__(self, model: LlamaModel, answers: dict[str, list[int]], seed: int = 0) -> None:
        super().__init__(model)
        self._told, self._random = answers, random.Random(seed)
        self.tried = 0

    def _may_pay(self, answers: int) -> bool:
        return True

    def _find(self, answering: Answering) -> Draft:
        super()._find(answering)
        turn = answering.turn
        rest = self._told[str(turn.question)][turn.tokens :] + [0] * ROWS[-1]
        return Draft([token if self._random.random() < 0.8 else 7 for token in rest], LENGTHS[-1])

    def _count(self, answers: Sequence[Answering], drafts: Sequence[Draft]) -> int:
        self.tried += 1
        return min(self._random.choice([0, 1, 2, 5, 15]), min(answering.turn.left for answering in answers) - 1)


@contextmanager
def opened(path: Path, slots: int = 1, told: dict[str, list[int]] | None = None) -> Iterator[Batch]:
    model = LlamaModel(path, CONTEXT, 2, slots)
    batch = Batch(model, speculation=None if told is None else Told(model, told))
    yield batch
    batch.close()


class Asked:
    """A turn, and what came of it."""

    def __init__(self, batch: Batch, text: str, sampling: Sampling) -> None:
        self.pieces: list[Piece] = []
        self.drawn: list[int] = []
        self.turn = Turn("", text, sampling, self.pieces.append)  # type: ignore[arg-type]
        self.turn.prepare(batch.model, drop_oldest=False)
        take = self.turn.take

        def noted(token: int, model: LlamaModel, scored: Scored | None = None) -> None:
            self.drawn.append(token)
            take(token, model, scored)

        self.turn.take = noted  # type: ignore[method-assign]


TEXTS = [f"{word} and {word} again" for word in ("tea", "rain", "moon", "why", "eleven", "no")]
SAMPLINGS = {
    "greedy": Sampling(40, temperature=0),
    "drawn": Sampling(40, temperature=1.5, seed=3, repeat_penalty=1.2, logprobs=2),
    "of a form": Sampling(40, temperature=1.0, seed=3, form=Form("pattern", "[a-z]{10,30}", "form")),
    "stopped": Sampling(40, temperature=0, stop=("e",), min_tokens=3),
}


def behind_prompt(turn: Turn, slot: int = 0) -> Answering:
    """What an answer is drafted by, were its prompt's last token its own first one."""
    return Answering(turn, slot, turn.prompt[:-1], turn.prompt[-1])


def told(path: Path, sampling: Sampling) -> dict[str, list[int]]:
    """What each text is answered by without drafts."""
    answers = {}
    with opened(path) as batch:
        for text in TEXTS:
            asked = Asked(batch, text, sampling)
            batch.run(asked.turn)
            answers[text] = asked.drawn
    return answers


@pytest.mark.parametrize("how", SAMPLINGS)
@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_answers_with_drafts_are_those_without(kinds: dict[str, Path], kind: str, how: str) -> None:
    sampling = SAMPLINGS[how]
    answers = told(kinds[kind], sampling)
    with opened(kinds[kind], slots=3, told=answers) as batch:
        assert batch._speculation is not None, "tokens add up otherwise together than one by one"
        asked = [Asked(batch, text, sampling) for text in TEXTS]
        for _ in batch.run_all([one.turn for one in asked]):
            pass
        assert {text: one.drawn for text, one in zip(TEXTS, asked, strict=True)} == answers
        turns = [one.turn for one in asked]
        accepted, drafted = (sum(getattr(turn, name) for turn in turns) for name in ("accepted", "drafted"))
        assert 0 < accepted < drafted
        assert [one.pieces[-1].accepted for one in asked] == [turn.accepted for turn in turns]


def gained(model: LlamaModel, one: noise.Alone) -> float:
    """By how much one logit gains on another at most when an answer is decoded several tokens at a time."""
    tokens, most = [*one.prompt, *one.tokens], 0.0
    for number in (4, 8, 16, 32):
        model.forget(0)
        for start in range(0, len(tokens), number):
            piece = tokens[start : start + number]
            model.decode([Entry(token, start + i, 0, True) for i, token in enumerate(piece)])
            for i in range(len(piece)):
                index = start + i - len(one.prompt) + 1
                if 0 <= index < len(one.logits):
                    change = model.logits(i) - one.logits[index]
                    most = max(most, float(change.max() - change.min()))
    return most


def test_where_kernels_add_up_otherwise_answers_part_at_ties_alone(kinds: dict[str, Path]) -> None:
    with LlamaModel(kinds["Q4_K_M"], CONTEXT, 2) as model:
        alone = [noise.alone(model, text, 40) for text in TEXTS]  # type: ignore[arg-type]
        least = max(gained(model, one) for one in alone)
    with opened(kinds["Q4_K_M"], told={text: one.tokens for text, one in zip(TEXTS, alone, strict=True)}) as batch:
        asked = [Asked(batch, text, SAMPLINGS["greedy"]) for text in TEXTS]
        for one in asked:
            batch.run(one.turn)
    assert sum(one.turn.accepted for one in asked) > 0
    for one, other in zip(alone, asked, strict=True):
        parted = [i for i, pair in enumerate(zip(one.tokens, other.drawn, strict=False)) if pair[0] != pair[1]]
        assert all(one.margin(index) < least for index in parted[:1])


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_drafted_and_wrong_is_gone_from_the_cache(kinds: dict[str, Path], kind: str) -> None:
    sampling, text = SAMPLINGS["greedy"], TEXTS[0]
    answers = told(kinds[kind], sampling)
    with opened(kinds[kind]) as plain, opened(kinds[kind], told=answers) as drafting:
        for batch in (plain, drafting):
            batch.run(Asked(batch, text, sampling).turn)
        kept, (slot,) = plain._slots[0].tokens, drafting._slots
        assert slot.tokens == kept
        assert len(drafting.model.save(0)) == len(plain.model.save(0))
        if kind != "Q4_K_M":
            assert bytes(drafting.model.save(0)) == bytes(plain.model.save(0))


def test_a_model_drafts_for_another_one_of_its_vocabulary(kinds: dict[str, Path]) -> None:
    sampling = SAMPLINGS["greedy"]
    answers = told(kinds["Q8_0"], sampling)
    model, draft = LlamaModel(kinds["Q8_0"], CONTEXT, 2, 3), LlamaModel(kinds["F16"], CONTEXT, 2, 3, chats=False)
    speculation = Speculation(model, DraftModel(draft))
    speculation._costs = Costs({1: 1.0, 16: 1.0})  # whatever this machine takes, all that is right pays
    speculation._draft_model.costs = Costs({1: 0.0, 16: 0.0})  # type: ignore[union-attr]
    batch = Batch(model, speculation=speculation)
    asked = [Asked(batch, text, sampling) for text in TEXTS]
    for _ in batch.run_all([one.turn for one in asked]):
        pass
    batch.close()
    assert {text: one.drawn for text, one in zip(TEXTS, asked, strict=True)} == answers
    assert sum(one.turn.accepted for one in asked) > 50  # the same weights, all but rounded


def test_a_draft_model_that_does_not_pay_is_switched_off_and_that_is_said_once(
    kinds: dict[str, Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Costs, "learn", lambda *_: None)
    model, draft = LlamaModel(kinds["Q8_0"], CONTEXT, 2), LlamaModel(kinds["F16"], CONTEXT, 2, chats=False)
    speculation = Speculation(model, DraftModel(draft))
    speculation._costs = Costs({1: 1.0, 32: 32.0})
    speculation._draft_model.costs = Costs({1: 0.5, 32: 1.0})  # type: ignore[union-attr]
    batch = Batch(model, speculation=speculation)
    turns = [Asked(batch, text, Sampling(PATIENCE, temperature=0, ignore_eos=True)).turn for text in TEXTS]
    with caplog.at_level(logging.WARNING):
        for turn in turns:
            batch.run(turn)
    batch.close()
    (line,) = (record.getMessage() for record in caplog.records)
    assert re.fullmatch(
        r"Q8_0: the draft model F16 does not pay: a token takes 50% of one without it, and [89]\d% are right", line
    )
    assert TRIAL * 0.8 < sum(turn.accepted for turn in turns) <= TRIAL * 1.5


def test_a_draft_is_what_followed_the_longest_known_end_the_last_time() -> None:
    lookup = Lookup()
    lookup.read([1, 2, 3, 4, 5, 9, 2, 3, 4, 6])
    assert lookup.draft(3) is None
    lookup.read([8, 1])
    assert lookup.draft(2) == Draft([2, 3], 1)
    lookup.read([2, 3])
    assert lookup.draft(2) == Draft([4, 5], 3)  # of 1 2 3, though 2 3 has come later
    lookup.read([4])
    assert lookup.draft(2) == Draft([5, 9], 4)
    lookup.read([7, 4])
    assert lookup.draft(2) is None  # which has come more than once, and tells nothing alone


def test_a_draft_of_what_repeats_itself_goes_on_repeating() -> None:
    lookup = Lookup()
    lookup.read([7, 1, 2, 3, 1, 2, 3])
    assert lookup.draft(7) == Draft([1, 2, 3, 1, 2, 3, 1], 3)


def test_of_a_conversation_nothing_is_copied_but_what_it_has_grown_by() -> None:
    answering = Answering(Turn("", "tea", Sampling(1), lambda _: None), 0, [4, 5, 6], 7)
    assert [answering.tokens_from(start) for start in range(5)] == [[4, 5, 6, 7], [5, 6, 7], [6, 7], [7], []]
    assert answering.length == 4


def test_what_speaks_for_a_token_grows_with_those_right_before_it() -> None:
    assert REACHED[3][:6] == [3, 4, 4, 4, 4, 8]
    assert set(REACHED[MODEL]) == {MODEL}


def test_costs_lie_on_a_line_between_those_that_were_measured() -> None:
    costs = Costs({1: 10.0, 4: 13.0, 8: 21.0})
    assert [costs.of(rows) for rows in (1, 2, 4, 6, 8, 16)] == [10, 11, 13, 17, 21, 37]
    for _ in range(100):
        costs.learn(16, 50.0)
    assert costs.of(16) == pytest.approx(50)
    costs.learn(16, 1e9)
    assert costs.of(16) < 61  # something else held it up


def test_nothing_is_drafted_that_cannot_pay(kinds: dict[str, Path]) -> None:
    with opened(kinds["Q8_0"]) as batch:
        speculation = Speculation(batch.model)
        turn = Asked(batch, "tea tea tea tea tea tea tea", SAMPLINGS["greedy"]).turn
        answering = [behind_prompt(turn)]
        speculation._costs = Costs({1: 1.0, 32: 1.5})
        assert speculation.draft(answering).length == ROWS[-1] - 1
        speculation._answers[turn].account = 0.1  # all that was to spare has been lost, but for this
        assert speculation.draft(answering).length == 3
        speculation._answers[turn].account = 10.0
        speculation._costs = Costs({1: 1.0, 32: 32.0})
        assert speculation.draft(answering).length == 0


def test_in_company_nothing_is_drafted_unless_all_gain(kinds: dict[str, Path]) -> None:
    with opened(kinds["Q8_0"], slots=2) as batch:
        speculation = Speculation(batch.model)
        speculation._costs = Costs({1: 1.0, 16: 1.5, 32: 1.9})
        copies, new = (Asked(batch, text, SAMPLINGS["greedy"]).turn for text in ("tea tea tea tea", "abcdefgh"))
        both = [behind_prompt(copies), behind_prompt(new, 1)]
        assert speculation.draft(both[:1]).length
        assert not speculation.draft(both).length
        assert speculation.draft([both[0], Answering(new, 1, copies.prompt[:-1], copies.prompt[-1])]).length


def test_what_was_wrong_of_late_is_not_tried_again(kinds: dict[str, Path]) -> None:
    with opened(kinds["Q8_0"]) as batch:
        speculation = Speculation(batch.model)
        turn = Asked(batch, "tea tea tea tea", SAMPLINGS["greedy"]).turn
        answering = [behind_prompt(turn)]
        lengths = []
        for _ in range(20):
            speculation._costs = Costs({1: 1.0, 32: 2.0})
            tried = speculation.draft(answering)
            lengths.append(tried.length)
            if tried.length:
                speculation.learn(tried, [0])
        assert lengths[0] > 3
        assert sorted(lengths, reverse=True) == lengths
        assert lengths[-1] == 0


def test_vocabularies_are_told_apart(tmp_path: Path, kinds: dict[str, Path]) -> None:
    other = write_scripted(tmp_path / "other.gguf", [b" so", b" long"])
    assert vocabulary(kinds["F16"]) == vocabulary(kinds["Q8_0"]) != vocabulary(other)


def variants() -> list[str]:
    """The builds of llama.cpp's kernels that stand beside it; one without a name where there is only that."""
    folder = Path(llama_cpp.llama_cpp._base_path)
    return sorted(path.stem.removeprefix("libggml-cpu-") for path in folder.glob("libggml-cpu-*.so")) or [""]


@pytest.mark.long
@pytest.mark.parametrize("variant", variants())
def test_tokens_together_add_up_as_one_by_one_in_every_variant(tmp_path: Path, variant: str) -> None:
    libraries = tmp_path / "lib"  # with that one alone
    libraries.mkdir()
    for path in Path(llama_cpp.llama_cpp._base_path).glob("*.so"):
        if not path.stem.startswith("libggml-cpu-") or path.stem == f"libggml-cpu-{variant}":
            (libraries / path.name).symlink_to(path)
    if variant and not ctypes.CDLL(str(libraries / f"libggml-cpu-{variant}.so")).ggml_backend_score():
        pytest.skip(f"this CPU cannot run {variant}")
    exact, others = ["F32", "F16", "BF16", "Q8_0"], ["Q6_K", "Q5_K_M", "Q5_K_S", "Q4_0", "Q3_K_S", "IQ4_NL", "IQ4_XS"]
    command = [sys.executable, Path(__file__).parents[1] / "helpers/rows.py", tmp_path, *exact, *others]
    environment = os.environ | {"LLAMA_CPP_LIB_PATH": str(libraries)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    differ = json.loads(done.stdout)
    assert {kind: differ[kind] for kind in exact} == {kind: [] for kind in exact}
    assert {kind: numbers for kind, numbers in differ.items() if min(numbers, default=8) < 8} == {}
