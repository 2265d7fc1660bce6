"""Near-duplicates as MinHash finds them, and the exact join, both against each pair compared with each."""

import random
from itertools import combinations

import numpy as np
import pytest

from pipeline.data.exact_join import crossing_pairs
from pipeline.data.near_duplicates import near_pairs, overlaps, shingle


def grams(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[n : n + 3]) for n in range(max(len(words) - 2, min(len(words), 1)))}


def jaccard(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0


def found(texts: list[str], threshold: float) -> set[tuple[int, int]]:
    return {(n, m) for n, m in near_pairs(shingle(texts), threshold).tolist()}


def changed(text: str, draw: random.Random) -> str:
    """The text with some words changed, left out or put elsewhere."""
    words = text.split()
    for _ in range(draw.randrange(4)):
        place = draw.randrange(len(words))
        change = draw.choice(("change", "crop", "move"))
        if change == "change":
            words[place] = f"other{draw.randrange(99)}"
        elif change == "crop":
            words = words[: -1 - draw.randrange(3)]
        else:
            words = words[place:] + words[:place]
    return " ".join(words)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    draw = random.Random(0)
    originals = [" ".join(f"w{draw.randrange(300)}" for _ in range(draw.randrange(20, 60))) for _ in range(60)]
    short = [" ".join(f"w{draw.randrange(9)}" for _ in range(draw.randrange(5))) for _ in range(30)]
    return [*originals, *(changed(text, draw) for text in originals * 2), *short]


@pytest.fixture(scope="module")
def truth(texts: list[str]) -> dict[tuple[int, int], float]:
    """What each two overlap."""
    sets = list(map(grams, texts))
    return {(n, m): jaccard(sets[n], sets[m]) for n, m in combinations(range(len(texts)), 2)}


Truth = dict[tuple[int, int], float]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_nearly_all_pairs_are_found_and_no_others(texts: list[str], truth: Truth, threshold: float) -> None:
    right, pairs = {pair for pair, overlap in truth.items() if overlap >= threshold}, found(texts, threshold)
    assert len(right) > 20
    assert pairs <= right
    assert len(pairs) >= 0.97 * len(right)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_the_exact_join_finds_each_pair_across(texts: list[str], truth: Truth, threshold: float) -> None:
    order = np.random.default_rng(0).permutation(len(texts))
    ones, others = order[:80], order[80:]
    across = {tuple(sorted((n, m))) for n in ones.tolist() for m in others.tolist()}
    right = {pair for pair in across if truth[pair] >= threshold}
    pairs = crossing_pairs(shingle(texts), ones, others, threshold)
    assert set(pairs[:, 0].tolist()) <= set(ones.tolist())
    assert {tuple(sorted(pair)) for pair in pairs.tolist()} == right
    assert len(right) > 10


def test_overlaps_are_exact_however_they_are_cut_into_parts(
    texts: list[str], truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = list(truth)[::50]
    for chunk in (200, 4_000_000):
        monkeypatch.setattr("pipeline.data.near_duplicates.CHUNK", chunk)
        assert overlaps(shingle(texts), np.array(pairs)).tolist() == [truth[pair] for pair in pairs]


def test_many_texts_alike_are_tied_into_one() -> None:
    shared = " ".join(f"w{n}" for n in range(60))
    alike = [f"{shared} end{n}" for n in range(500)]
    reached = {0}
    for n, m in sorted(found(alike, 0.8)):
        reached |= {n, m} if reached & {n, m} else set()
    assert reached == set(range(500))
    assert len(found(alike, 0.8)) < 500 * 60  # of 500 * 250


def test_texts_without_spaces_have_a_word_a_character() -> None:
    one, other = "\u8acb\u544a\u8a34\u6211\u6cd5\u570b\u7684\u9996\u90fd\u662f\u54ea\u88e1\u5462", "\u8acb\u544a"
    assert shingle([one, other]).sizes.tolist() == [11, 1]


def test_nothing_is_near_to_nothing() -> None:
    assert found([], 0.8) == found([""], 0.8) == found(["", "", "a b c"], 0.8) == set()
    none = np.empty(0, np.int64)
    assert len(crossing_pairs(shingle(["a"]), none, np.array([0]), 0.8)) == 0
    assert len(crossing_pairs(shingle([]), none, none, 0.8)) == 0
