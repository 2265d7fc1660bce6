"""Answers given together: the same as alone, with what is known from before, at any type of weights."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from tiny_gguf import write_random

from benchmarks import noise
from llama.batch import CHUNK, FEWEST, Batch, next_piece
from llama.model import BATCH, Entry, LlamaModel, Sampler, Scored, shared_length
from llama.turn import Piece, StopTexts, Turn
from llama.types import Message, Sampling
from pipeline.gguf.quantize import quantize

CONTEXT = 512


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same random weights in three types; rows of 256 numbers, as K-quants want them."""
    folder = tmp_path_factory.mktemp("kinds")
    files = {"F32": write_random(folder / "F32.gguf", width=256)}
    for kind in ("Q8_0", "Q4_K_M"):
        files[kind] = folder / f"{kind}.gguf"
        quantize(files["F32"], files[kind], kind)
    return files


@contextmanager
def batch(path: Path, slots: int = 4, prompt_cache_bytes: int = 1 << 30) -> Iterator[Batch]:
    batch = Batch(LlamaModel(path, CONTEXT, 2, slots), prompt_cache_bytes)
    try:
        yield batch
    finally:
        batch.close()


class Asked:
    """A turn and what has come of it."""

    def __init__(self, batch: Batch, messages: Sequence[Message], max_tokens: int = 24) -> None:
        self.pieces: list[Piece] = []
        self.drawn: list[int] = []
        self.turn = Turn("", messages, Sampling(max_tokens, temperature=0), self.pieces.append)  # type: ignore[arg-type]
        self.turn.prepare(batch.model, drop_oldest=False)
        take = self.turn.take

        def noted(token: int, model: LlamaModel, scored: Scored | None) -> None:
            self.drawn.append(token)
            take(token, model, scored)

        self.turn.take = noted  # type: ignore[method-assign]

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


def ask(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def run(batch: Batch, asked: Asked) -> Asked:
    batch.run(asked.turn)
    return asked


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(["tea", "rain", "moon", "eleven", "why"]) for _ in range(count))


def test_answers_that_end_in_the_same_step_each_end_once(kinds: dict[str, Path]) -> None:
    lengths = (20, 3, 20, 3)  # the second leaves a gap, into which the last would move
    with batch(kinds["F32"]) as all_at_once:
        asked = [Asked(all_at_once, ask("why"), length) for length in lengths]
        for one in asked:
            assert all_at_once.begin(one.turn)
        while all_at_once.active:
            all_at_once.step()
    assert [len(one.drawn) for one in asked] == list(lengths)
    assert [[piece.finish for piece in one.pieces if piece.finish] for one in asked] == [["length"]] * 4


def questions() -> tuple[list[list[Message]], list[int]]:
    """Some, and how long their answers are: so that these end, and leave gaps, in any order."""
    rng = random.Random(4)
    asked = [ask(words(rng, rng.choice([1, 5, 30, 60]))) for _ in range(12)]
    return asked, [rng.choice([3, 10, 30]) for _ in asked]


def together(batch: Batch) -> list[Asked]:
    """All questions at once, as far as there are streams."""
    asked = [Asked(batch, question, length) for question, length in zip(*questions(), strict=True)]
    waiting = list(asked)
    while waiting or batch.active:
        while waiting and batch.begin(waiting[0].turn):
            del waiting[0]
        assert [s.id for s in batch.active] == [batch.active[0].id + i for i in range(len(batch.active))]
        batch.step()
    return asked


def test_answers_in_company_are_those_given_alone(kinds: dict[str, Path]) -> None:
    alone = []
    for question, length in zip(*questions(), strict=True):
        with batch(kinds["Q8_0"], slots=1, prompt_cache_bytes=0) as fresh:
            alone.append(run(fresh, Asked(fresh, question, length)).drawn)
    with batch(kinds["Q8_0"]) as at_once:
        assert [asked.drawn for asked in together(at_once)] == alone


def test_batching_is_no_noise_where_kernels_add_up_in_one_order(kinds: dict[str, Path]) -> None:
    with LlamaModel(kinds["Q8_0"], CONTEXT, 2, 4) as model:
        alone = [noise.alone(model, question, length) for question, length in zip(*questions(), strict=True)]
        assert noise.measure(model, alone[:4]) == 0
    with batch(kinds["Q8_0"], slots=1, prompt_cache_bytes=0) as fresh:
        assert run(fresh, Asked(fresh, questions()[0][0], len(alone[0].tokens))).drawn == alone[0].tokens


def test_where_kernels_add_up_otherwise_answers_part_at_ties_alone(kinds: dict[str, Path]) -> None:
    with LlamaModel(kinds["Q4_K_M"], CONTEXT, 2, 4) as model:
        alone = [noise.alone(model, question, length) for question, length in zip(*questions(), strict=True)]
        least = max(noise.measure(model, alone[start : start + 4]) for start in range(0, len(alone), 4))
    with batch(kinds["Q4_K_M"]) as at_once:
        asked = together(at_once)
    for one, other in zip(alone, asked, strict=True):
        parted = [i for i, pair in enumerate(zip(one.tokens, other.drawn, strict=False)) if pair[0] != pair[1]]
        assert all(one.margin(index) < least for index in parted[:1])


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_a_conversation_goes_on_from_what_is_known_of_it(kinds: dict[str, Path], kind: str) -> None:
    with batch(kinds[kind], slots=2) as known:
        users = [ask(f"I am number {i}, and this is what I have to say.") for i in range(4)]  # more than streams
        for turn_number in range(3):
            for messages in users:
                asked = run(known, Asked(known, messages, 8))
                with batch(kinds[kind], slots=1, prompt_cache_bytes=0) as fresh:
                    assert run(fresh, Asked(fresh, messages, 8)).drawn == asked.drawn
                if turn_number:
                    new = len(asked.turn.prompt) - asked.turn.cached
                    assert new < 60 < asked.turn.cached
                messages += [{"role": "assistant", "content": asked.text}, *ask("And then?")]


def test_a_beginning_that_others_have_is_read_once(kinds: dict[str, Path]) -> None:
    system: Message = {"role": "system", "content": "You are asked by many people. " * 6}
    with batch(kinds["Q8_0"]) as together:
        first = run(together, Asked(together, [system, *ask("one")]))
        second = Asked(together, [system, *ask("two")])
        third = Asked(together, [system, *ask("three")])
        assert together.begin(second.turn)
        assert together.begin(third.turn)
        shared = shared_length(first.turn.prompt, second.turn.prompt)
        assert shared > 150
        assert (first.turn.cached, second.turn.cached) == (0, shared)
        assert third.turn.cached >= shared
        again = run(together, Asked(together, [system, *ask("one")]))
        assert again.drawn == first.drawn
        assert again.turn.cached == len(again.turn.prompt) - FEWEST


@pytest.mark.parametrize("room", [4, 64, CHUNK, BATCH])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 6, 7, 96, 97, 98, 257, 1000])
def test_no_piece_of_a_prompt_is_a_single_token(length: int, room: int) -> None:
    rest, pieces = list(range(length)), []
    while piece := next_piece(rest, room):
        pieces.append(piece)
        rest = rest[len(piece) :]
    assert all(min(FEWEST, length) <= len(piece) <= min(room + room // 2, BATCH) for piece in pieces)
    assert list(chain.from_iterable(pieces)) == list(range(length))


def test_the_longest_unused_conversation_is_forgotten_first(kinds: dict[str, Path]) -> None:
    texts = [letter * 40 for letter in "abcd"]
    with batch(kinds["Q8_0"], slots=1) as one:
        run(one, Asked(one, ask(texts[0]), 1))
        room = int(2.5 * len(one.model.save(0)))  # for two beside the one in the cache
    with batch(kinds["Q8_0"], slots=1, prompt_cache_bytes=room) as one:
        for text in [*texts[:3], texts[1] + " and more", texts[3]]:
            run(one, Asked(one, ask(text), 1))
        kept = [prompt_cache_bytes.tokens for prompt_cache_bytes in one._prompt_cache]
        assert kept == [one.model.prompt(ask(text)) for text in (texts[1], texts[1] + " and more")]


def test_a_conversation_is_put_aside_once(kinds: dict[str, Path]) -> None:
    with batch(kinds["Q8_0"], slots=1) as one:
        for text in ("one", "two", "three") * 3:
            run(one, Asked(one, ask(text), 4))
        assert len(one._prompt_cache) <= 3


def test_a_long_prompt_does_not_stall_the_others(kinds: dict[str, Path]) -> None:
    with batch(kinds["Q8_0"]) as together:
        talking = Asked(together, ask("hi"), 60)
        assert together.begin(talking.turn)
        while not talking.pieces:
            together.step()
        assert together.begin(Asked(together, ask("x" * 400)).turn)
        for _ in range(6):
            before = len(talking.pieces)
            together.step()
            assert len(talking.pieces) == before + 1


def first_logits(batch: Batch, asked: Asked) -> np.ndarray:
    """Those that the first token of an answer is drawn from, when it comes to that."""
    draw, kept = batch.model.draw, {}

    def noted(sampler: Sampler, index: int, allowed: np.ndarray | None) -> int:
        kept.setdefault(sampler, batch.model.logits(index).copy())
        return draw(sampler, index, allowed)

    batch.model.draw = noted  # type: ignore[method-assign]
    while not asked.pieces:
        batch.step()
    return kept[asked.turn.sampler]


def test_a_prompt_is_read_to_the_same_bits_while_others_answer(kinds: dict[str, Path]) -> None:
    prompt = ask("x" * 400)
    with batch(kinds["Q8_0"], slots=1) as fresh:
        alone = Asked(fresh, prompt, 1)
        assert fresh.begin(alone.turn)
        expected = first_logits(fresh, alone)
    with batch(kinds["Q8_0"]) as company:
        talking = [Asked(company, ask(text), 60) for text in ("hi", "ho")]
        assert all(company.begin(asked.turn) for asked in talking)
        while not all(asked.pieces for asked in talking):
            company.step()
        read = Asked(company, prompt, 1)
        assert company.begin(read.turn)
        calls, decode = [], company.model.decode

        def noted(entries: Sequence[Entry]) -> None:
            calls.append([entry.slot for entry in entries])
            decode(entries)

        company.model.decode = noted  # type: ignore[method-assign]
        assert (first_logits(company, read) == expected).all()
        assert all(len(asked.pieces) > 3 for asked in talking)
    # llama.cpp computes one token of each stream first where streams have unlike numbers of them: one of a piece too
    assert all(len(set(call)) in (1, len(call)) for call in calls)


@pytest.mark.parametrize("prompts", [1, 2, 3])
def test_an_answer_waits_for_one_piece_however_many_prompts_there_are(kinds: dict[str, Path], prompts: int) -> None:
    with batch(kinds["Q8_0"]) as together:
        talking = Asked(together, ask("hi"), 60)
        assert together.begin(talking.turn)
        while not talking.pieces:
            together.step()
        for letter in "abc"[:prompts]:
            assert together.begin(Asked(together, ask(letter * 400)).turn)
        before = sum(len(slot.tokens) for slot in together.active)
        together.step()
        assert sum(len(slot.tokens) for slot in together.active) - before == 1 + CHUNK


def test_a_short_question_is_not_held_up_by_a_long_one(kinds: dict[str, Path]) -> None:
    with batch(kinds["Q8_0"]) as together:
        long, short = (Asked(together, ask("a" * length), 5) for length in (400, 40))
        assert together.begin(long.turn)
        together.step()
        assert together.begin(short.turn)
        together.step()
        assert short.pieces
        assert not long.pieces
        while not long.pieces:
            together.step()


def test_a_stream_without_an_answer_is_gone_on_with_before_another_is_copied(kinds: dict[str, Path]) -> None:
    system: Message = {"role": "system", "content": "You are asked by many people."}
    with batch(kinds["Q8_0"], slots=2) as two:
        for text in ("one", "two"):
            asked = Asked(two, [system, *ask(text)], 4)
            assert two.begin(asked.turn)
        while two.active:
            two.step()
        first, second = (Asked(two, [system, *ask(text)]) for text in ("3", "4"))
        assert two.begin(first.turn)
        two.model.restore = lambda *_: pytest.fail("a conversation was copied")  # type: ignore[method-assign]
        assert two.begin(second.turn)
        assert second.turn.cached == shared_length(first.turn.prompt, second.turn.prompt)


def test_a_cancelled_answer_frees_its_stream_at_the_next_step(kinds: dict[str, Path]) -> None:
    with batch(kinds["Q8_0"], slots=2) as two:
        turns = [Asked(two, ask(text), 400) for text in ("one", "two", "three")]
        assert [two.begin(asked.turn) for asked in turns] == [True, True, False]
        turns[0].turn.cancelled.set()
        two.step()
        assert [slot.turn for slot in two.active] == [turns[1].turn]
        assert two.begin(turns[2].turn)


def test_an_answer_that_nothing_was_read_for_yet_moves_to_where_another_was(kinds: dict[str, Path]) -> None:
    with batch(kinds["Q8_0"]) as together:
        turns = [Asked(together, ask(text), 8) for text in ("a" * 160, "b" * 200, "c" * 240)]
        assert all(together.begin(asked.turn) for asked in turns)
        for _ in range(2):  # the first prompt, a piece of the second
            together.step()
        assert [len(slot.tokens) > 0 for slot in together.active] == [True, True, False]
        turns[1].turn.cancelled.set()
        while together.active:
            together.step()
    with batch(kinds["Q8_0"], slots=1) as fresh:
        assert turns[2].drawn == run(fresh, Asked(fresh, ask("c" * 240), 8)).drawn


@pytest.mark.parametrize(
    ("stops", "pieces", "shown", "rest"),
    [
        ((), ["a", "b"], "ab", ""),
        (("END",), ["so E", "N", "D more"], "so ", ""),
        (("END",), ["so E", "N", "d"], "so ENd", ""),
        (("END",), ["so EN"], "so ", "EN"),
        (("\n\n", "User:"), ["a\n", "b Use", "r: c"], "a\nb ", ""),
        (("aab",), ["aaa", "b"], "a", ""),
    ],
)
def test_stop_texts(stops: tuple[str, ...], pieces: list[str], shown: str, rest: str) -> None:
    watch, seen = StopTexts(stops), ""
    for piece in pieces:
        text, stopped = watch.pass_on(piece)
        seen += text
        if stopped:
            break
    assert (seen, watch.rest()) == (shown, rest)
