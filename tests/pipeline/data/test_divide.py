"""Splits that know nothing of one another: what is kept together, what may be parted, and what moves."""

import random
from itertools import chain, combinations
from typing import NamedTuple

import numpy as np
import pytest
from corpora import corpus_of

from common.errors import UserError
from pipeline.core.data_settings import DataSettings
from pipeline.core.formats import Messages
from pipeline.data.dedup import duplicates, without
from pipeline.data.divide import Divided, divide
from pipeline.data.folding import fold


def chat(*turns: str) -> Messages:
    roles = ("user", "assistant") * len(turns)
    return [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]


class Found(NamedTuple):
    """Splits as conversations by name, and what else is said of them."""

    splits: dict[str, dict[str, Messages]]
    said: Divided
    leaks: dict[str, int]


def divided(
    rows: list[Messages],
    seed: int = 0,
    threshold: float | None = 0.8,
    common: float | None = 0.1,
    sizes: float = 0.2,
    **own: list[Messages],
) -> Found:
    every = {**own, "train": rows}
    corpus = corpus_of(chain.from_iterable(every.values()))
    ends = np.cumsum([len(part) for part in every.values()])
    numbers = dict(zip(every, np.split(np.arange(len(corpus)), ends[:-1]), strict=True))
    parts = {name: without(part, duplicates(corpus, part, "exact")) for name, part in numbers.items()}
    settings = DataSettings(
        "a", "files", ["a"], validation=sizes, test=sizes, seed=seed, leak_threshold=threshold, common_exchange=common
    )
    found = divide(corpus, parts, settings)
    named = {name: [(corpus.name(row), row) for row in part.tolist()] for name, part in found.splits.items()}
    splits = {name: {key: next(corpus.messages([row])) for key, row in part} for name, part in named.items()}
    return Found(splits, found, {name: len(pairs) for name, pairs in found.leaks.items()})


def said(rows: dict[str, Messages]) -> list[list[str]]:
    return [[fold(turn["content"]) for turn in chat if turn["role"] != "system"] for chat in rows.values()]


def exchanges(rows: dict[str, Messages]) -> set[tuple[str, str]]:
    return {pair for chat in said(rows) for pair in zip(chat[::2], chat[1::2], strict=True)}


def prompts(rows: dict[str, Messages]) -> set[tuple[str, ...]]:
    return {tuple(chat[::2]) for chat in said(rows)}


def some_chats(count: int, draw: random.Random) -> list[Messages]:
    """Chats of one or two exchanges out of a few hundred, so that many share some."""
    turns = [(f"Question {n}?", f"Answer {n}") for n in range(count)]
    drawn = [draw.sample(turns, draw.choice([1, 1, 1, 1, 1, 1, 1, 2])) for _ in turns]
    return [chat(*(text for turn in picked for text in turn)) for picked in drawn]


@pytest.mark.parametrize("seed", range(3))
def test_no_exchange_and_no_prompt_stands_in_two_splits(seed: int) -> None:
    rows = some_chats(300, random.Random(seed))
    rows += [[{"role": "system", "content": "Be kind."}, *chat(f"QUESTION {n}", f"Other {n}")] for n in range(60)]
    splits = divided(rows, seed).splits
    assert min(map(len, splits.values())) > 10
    for one, other in combinations(splits.values(), 2):
        assert not exchanges(one) & exchanges(other)
        assert not prompts(one) & prompts(other)


def test_rows_that_are_added_move_none_that_were_there() -> None:
    rows = [chat(f"Question {n}?", f"Answer {n}") for n in range(2000)]
    before, after = divided(rows[:1000]).splits, divided(rows).splits
    for name, part in before.items():
        assert part.keys() <= after[name].keys()
    assert 150 < len(before["test"]) < 250


def test_an_exchange_that_many_rows_have_ties_none() -> None:
    rows = [chat(f"Question {n}?", f"Answer {n}", "Thanks!", "You are welcome.") for n in range(40)]
    found = divided(rows)
    assert found.said.common_exchanges == 1
    assert all(found.splits.values())
    with pytest.raises(UserError, match="40 distinct with 1 component"):
        divided(rows, common=None)


def test_longer_versions_of_a_conversation_are_on_one_side() -> None:
    rows = [chat(f"Question {n}?", f"Answer {n}", *more) for n in range(40) for more in ((), ("More.", "More."))]
    found = divided(rows)
    for one, other in combinations(found.splits.values(), 2):
        assert not {row[0]["content"] for row in one.values()} & {row[0]["content"] for row in other.values()}


def test_by_the_letter_alone_case_tells_prompts_apart_and_shares_are_exact() -> None:
    rows = [chat(question, f"Answer {n}") for n in range(50) for question in (f"Question {n}?", f"question {n}")]
    sizes = {name: len(part) for name, part in divided(rows, threshold=None).splits.items()}
    assert sizes == {"train": 60, "validation": 20, "test": 20}
    assert divided(rows, threshold=None, test=[rows[0]]).leaks == {"test": 1}


def test_what_hangs_together_as_a_whole_cannot_be_split() -> None:
    rows = [chat(f"Q {n}?", "A", f"Q {n + 1}?", "A") for n in range(30)]
    with pytest.raises(UserError, match=r"30 distinct with 1 component, .* with data\.leak_threshold=null$"):
        divided(rows)
    assert all(divided(rows, threshold=None).splits.values())


def test_components_that_no_share_has_room_for_are_told_with_how_many_rows_it_takes() -> None:
    rows = [chat(f"Question {n}?", f"Answer {n}", *more) for n in range(9) for more in ((), ("And?", "No."))]
    with pytest.raises(UserError, match=r"18 distinct with 9 components of 2 rows or more, .*; let each take 2 rows,"):
        divided(rows, sizes=1)
    assert all(divided(rows, sizes=2).splits.values())


def templated(count: int, draw: random.Random) -> list[Messages]:
    """Long prompts of few templates, a word or two of which differ."""
    templates = [" ".join(f"w{draw.randrange(500)}" for _ in range(40)) for _ in range(count // 3)]
    return [chat(f"{draw.choice(templates)} x{draw.randrange(99)}.", f"Answer {n}") for n in range(count)]


@pytest.mark.parametrize("own", [False, True])
def test_no_prompt_of_a_split_is_nearly_one_of_another(own: bool) -> None:
    rows = templated(400, random.Random(0))
    brought = {"test": rows[300:]} if own else {}
    found = divided(rows[:300] if own else rows, **brought)
    assert found.said.largest_component > 2
    assert not own or found.leaks["test"] > 20
    assert not own or len(found.splits["test"]) == 100
    texts = {name: {text.rpartition(" ")[0] for (text,) in prompts(part)} for name, part in found.splits.items()}
    assert all(not texts[one] & texts[other] for one, other in combinations(texts, 2))


def test_what_minhash_misses_is_kept_together_by_the_exact_join(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = templated(300, random.Random(1))
    expected = divided(rows).splits
    monkeypatch.setattr("pipeline.data.divide.near_pairs", lambda shingles, threshold: np.empty((0, 2), np.int64))
    texts = {
        name: {text.rpartition(" ")[0] for (text,) in prompts(part)} for name, part in divided(rows).splits.items()
    }
    assert all(not texts[one] & texts[other] for one, other in combinations(texts, 2))
    assert expected.keys() == texts.keys()


def test_splits_that_cannot_be_kept_apart_are_refused_with_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.divide.ROUNDS", 1)
    monkeypatch.setattr("pipeline.data.divide.near_pairs", lambda shingles, threshold: np.empty((0, 2), np.int64))
    with pytest.raises(UserError, match=r"^two splits share a prompt above data\.leak_threshold 0\.8: 'w"):
        divided(templated(300, random.Random(1)))


def test_the_order_of_rows_does_not_count() -> None:
    rows = templated(300, random.Random(2))
    expected = {name: list(part.items()) for name, part in divided(rows).splits.items()}
    shuffled = random.Random(3).sample(rows, len(rows))
    assert {name: list(part.items()) for name, part in divided(shuffled).splits.items()} == expected
