import random

import numpy as np
import pytest
from corpora import corpus_of

from common.errors import UserError
from pipeline.core.formats import Messages
from pipeline.data import split as by_rows
from pipeline.data.dedup import duplicates, without
from pipeline.data.split import SPLITS


def pair(question: str, answer: str, system: str = "Be brief.") -> Messages:
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]


def distinct(count: int) -> list[Messages]:
    return [pair(f"Question {n}?", f"Answer {n}") for n in range(count)]


def split(rows: list[Messages], validation: float, test: float, seed: int) -> dict[str, dict[str, Messages]]:
    """The splits of the distinct rows, by name."""
    corpus, every = corpus_of(rows), np.arange(len(rows))
    made = by_rows.split(corpus, without(every, duplicates(corpus, every, "exact")), validation, test, seed)
    named = {name: [(corpus.name(row), row) for row in part.tolist()] for name, part in made.items()}
    return {name: {key: next(corpus.messages([row])) for key, row in part} for name, part in named.items()}


def prompts(rows: dict[str, Messages]) -> set[str]:
    return {messages[1]["content"] for messages in rows.values()}


@pytest.mark.parametrize(
    ("rows", "validation", "test", "sizes"),
    [
        (1000, 0.05, 0.05, (900, 50, 50)),
        (1000, 0.1, 30, (870, 100, 30)),
        (101, 7, 13, (81, 7, 13)),
        (3, 0.05, 0.05, (1, 1, 1)),
        (10, 0.45, 0.45, (2, 4, 4)),
        (10, 1, 8, (1, 1, 8)),
    ],
)
def test_sizes_are_exact_and_each_row_stands_in_one_split(
    rows: int, validation: float, test: float, sizes: tuple[int, ...]
) -> None:
    conversations = distinct(rows)
    for seed in range(5):
        splits = split(conversations, validation, test, seed)
        assert tuple(len(splits[name]) for name in SPLITS) == sizes
        every = [row for part in splits.values() for row in part.values()]
        assert sorted(map(str, every)) == sorted(str(row) for row in conversations)


def test_the_order_of_rows_changes_nothing() -> None:
    conversations = distinct(300)
    expected = {name: list(part.items()) for name, part in split(conversations, 0.1, 0.1, seed=3).items()}
    for seed in range(5):
        shuffled = random.Random(seed).sample(conversations, len(conversations))
        assert {name: list(part.items()) for name, part in split(shuffled, 0.1, 0.1, seed=3).items()} == expected


def test_another_seed_gives_another_split() -> None:
    conversations = distinct(300)
    assert split(conversations, 0.1, 0.1, 0)["test"].keys() != split(conversations, 0.1, 0.1, 1)["test"].keys()


def test_a_prompt_with_several_answers_stands_in_one_split() -> None:
    draw = random.Random(0)
    rows = [pair(f"Question {draw.randrange(150)}?", f"Answer {n}") for n in range(500)]
    for seed in range(5):
        splits = split(rows, 0.1, 0.1, seed)
        train, validation, test = (prompts(splits[name]) for name in SPLITS)
        assert not train & validation
        assert not train & test
        assert not validation & test
        assert len(splits["validation"]) == len(splits["test"]) == 50


def test_a_prompt_with_more_answers_than_a_split_has_room_goes_to_train() -> None:
    rows = [*(pair("Same?", f"Answer {n}") for n in range(50)), *distinct(50)]
    for seed in range(5):
        splits = split(rows, 10, 10, seed)
        assert "Same?" in prompts(splits["train"])
        assert tuple(len(splits[name]) for name in SPLITS) == (80, 10, 10)


def test_a_few_more_rows_leave_almost_every_row_in_its_split() -> None:
    before, after = (split(distinct(count), 0.1, 0.1, 0) for count in (1000, 1010))
    moved = sum(key not in after[name] for name, part in before.items() for key in part)
    assert moved <= 10


@pytest.mark.parametrize(("rows", "validation", "test"), [(0, 0.05, 0.05), (2, 0.05, 0.05), (10, 5, 5), (10, 0.5, 8)])
def test_too_few_rows_are_told_with_figures(rows: int, validation: float, test: float) -> None:
    with pytest.raises(UserError, match=rf"too few rows to split: {rows} distinct, of which data\.validation takes \d"):
        split(distinct(rows), validation, test, seed=0)


def test_too_few_different_prompts_are_told_with_figures() -> None:
    rows = [pair("Same?", f"Answer {n}") for n in range(100)]
    with pytest.raises(UserError, match="too few rows to split: 100 distinct with 1 different prompt,"):
        split(rows, 0.05, 0.05, seed=0)
