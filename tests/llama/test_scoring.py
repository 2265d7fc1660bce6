"""Texts judged together: as alone, each token that they share decoded once."""

import math
import random
from collections.abc import Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from tiny_gguf import write_random

from llama.batch import Batch
from llama.context import Context
from llama.model import BATCH, LlamaModel
from llama.scoring import SEQUENCES, Likelihood, Scorer, Text, grouped
from llama.turn import Piece, Turn
from llama.types import Sampling


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("scoring") / "F32.gguf", width=64)


def questions(seed: int, count: int, vocabulary: int = 250) -> list[Text]:
    """Questions with options of one token or more, some behind the same examples, some longer than a batch."""
    draw = random.Random(seed)

    def some(least: int, most: int) -> list[int]:
        return [draw.randrange(5, vocabulary) for _ in range(draw.randint(least, most))]

    examples = [some(BATCH // 2, BATCH + 50), some(5, 40), []]
    texts = []
    for _ in range(count):
        question = draw.choice(examples) + some(1, 30)
        texts += [Text(question + option, len(option)) for option in (some(1, draw.choice((1, 5))) for _ in range(4))]
    return texts + [Text(text.ids, len(text.ids) - 1) for text in texts[::9]]  # as a whole


def alone(path: Path, texts: Sequence[Text]) -> list[Likelihood]:
    found = []
    with Context(path, max(len(text.ids) for text in texts)) as context:
        for text in texts:
            log, greedy = 0.0, True
            for positions, logits in context.logits(text.ids, range(text.first, len(text.ids) - 1)):
                targets = [text.ids[position + 1] for position in positions]
                wide = logits.astype(np.float64)
                chances = np.exp(wide - wide.max(axis=1, keepdims=True))
                chances /= chances.sum(axis=1, keepdims=True)
                log += float(np.log(chances[range(len(targets)), targets]).sum())
                greedy &= logits.argmax(axis=1).tolist() == targets
            found.append(Likelihood(log, greedy))
    return found


CLOSE = 1e-2  # of a likelihood: keys and values are in 16 bit, and attention adds up in another order


@pytest.mark.parametrize("seed", range(3))
def test_texts_are_found_as_likely_together_as_alone(path: Path, seed: int) -> None:
    texts = questions(seed, 12)
    with Scorer(path, max(len(text.ids) for text in texts)) as scorer:
        together = dict(scorer.likelihoods(texts))
        again = dict(scorer.likelihoods(texts[:5]))  # whatever the cache holds from before
    expected = alone(path, texts)
    assert [together[number].log for number in range(len(texts))] == pytest.approx(
        [one.log for one in expected], rel=CLOSE
    )
    assert [together[number].greedy for number in range(len(texts))] == [one.greedy for one in expected]
    assert [again[number].log for number in range(5)] == pytest.approx([one.log for one in expected[:5]], rel=CLOSE)


def test_the_continuation_that_the_model_itself_would_write_is_greedy(path: Path) -> None:
    ids = [7, 8, 9]
    with Context(path, 8) as context:
        for _ in range(3):
            ids.append(int(next(context.logits(ids, [len(ids) - 1]))[1].argmax()))
    other = [*ids[:-1], (ids[-1] + 1) % 200]
    with Scorer(path, 8) as scorer:
        found = dict(scorer.likelihoods([Text(ids, 3), Text(other, 3)]))
    assert [found[0].greedy, found[1].greedy] == [True, False]


@pytest.mark.parametrize("seed", range(20))
def test_each_sequence_comes_to_its_text_and_no_token_is_decoded_twice_in_a_group(seed: int) -> None:
    draw = random.Random(seed)
    drawn = [[draw.randrange(2) for _ in range(draw.randint(2, 9))] for _ in range(100)]
    texts = [Text(ids, draw.randint(1, len(ids) - 1)) for ids in drawn]
    texts = sorted(texts, key=lambda text: list(text.read))
    last: list[int] = []
    groups = list(grouped(texts, SEQUENCES))
    for group in groups:
        held = [last[:known] for known in group.known]
        tokens = list(group.tokens())
        for token in tokens:
            for sequence in token.sequences:
                assert len(held[sequence]) == token.position
                held[sequence].append(token.id)
        assert held == [list(text.read) for text in group.texts]
        assert all(known <= text.first for known, text in zip(group.known, group.texts, strict=True))
        paths = {tuple(text.read[: at + 1]) for text in group.texts for at in range(len(text.read))}
        assert len(tokens) <= len(paths) <= len(tokens) + group.known[0]
        last = held[-1]
    assert list(chain.from_iterable(group.texts for group in groups)) == texts


def test_examples_that_all_questions_share_are_decoded_once() -> None:
    examples = list(range(5, 5 + BATCH))
    texts = sorted((Text([*examples, 1000 + number, 7], 1) for number in range(200)), key=lambda text: list(text.read))
    groups = list(grouped(texts, SEQUENCES))
    assert sum(1 for group in groups for _ in group.tokens()) == BATCH + 200


def test_a_model_whose_state_cannot_be_shared_is_asked_text_by_text() -> None:
    texts = [Text([1, 2, 3], 1), Text([1, 2, 4], 1)]
    assert [group.known for group in grouped(texts, 1)] == [[0], [0]]
    assert [len(list(group.tokens())) for group in grouped(texts, 1)] == [2, 2]


def test_a_likelihood_of_broken_weights_is_no_number(tmp_path: Path) -> None:
    import gguf

    path = write_random(tmp_path / "broken.gguf", width=64)
    reader = gguf.GGUFReader(path, "r+")
    reader.tensors[0].data[:] = np.nan
    reader.data.flush()
    with Scorer(path, 4) as scorer:
        ((_, found),) = scorer.likelihoods([Text([5, 6, 7], 2)])
    assert np.isnan(found.log)


def test_a_prompt_that_is_told_again_is_as_likely_as_a_text(path: Path) -> None:
    ids = max((text.ids for text in questions(0, 3)), key=len)
    pieces: list[Piece] = []
    with closing(Batch(LlamaModel(path, 512, 1, chats=False))) as batch, Scorer(path, len(ids)) as scorer:
        echo = Turn("", "", Sampling(max_tokens=1, temperature=0, echo=True, logprobs=1), pieces.append)  # type: ignore[arg-type]
        echo.go_on_from(ids, batch.model)
        batch.run(echo)
        ((_, judged),) = scorer.likelihoods([Text(ids, 100)])
    logs = [scored.logprob for scored in pieces[0].echoed]
    assert len(logs) == len(ids)
    assert math.isclose(math.fsum(log or 0 for log in logs[-100:]), judged.log, abs_tol=CLOSE)
