import random
from collections.abc import Sequence

import numpy as np
from corpora import corpus_of

from pipeline.core.formats import Messages
from pipeline.data.dedup import duplicates, near_duplicates, without
from pipeline.data.folding import squeeze
from pipeline.data.traits import traits_of


def pair(question: str, answer: str) -> Messages:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def kept(rows: Sequence[Messages], how: str) -> dict[str, Messages]:
    """What stays of rows, by name."""
    corpus = corpus_of(rows)
    every = np.arange(len(rows))
    left = without(every, duplicates(corpus, every, how)).tolist()
    return {corpus.name(row): messages for row, messages in zip(left, corpus.messages(left), strict=True)}


def test_whitespace_and_composition_do_not_tell_texts_apart() -> None:
    assert squeeze(" Cafe\u0301 \n\t au  lait\u00a0") == "Caf\u00e9 au lait"
    assert squeeze("\x1f a \n\n\n\n b\x0b\x0cc ") == "a b c"
    assert traits_of(pair("Cafe\u0301?", "Yes.\n")).digest == traits_of(pair(" Caf\u00e9?", "Yes.")).digest


def test_case_punctuation_and_roles_do() -> None:
    rows = [pair("Who?", "Ann"), pair("who?", "Ann"), pair("Who", "Ann"), pair("Who?", "Ann.")]
    rows.append([{"role": "system", "content": "Who?"}, {"role": "assistant", "content": "Ann"}])
    assert len(kept(rows, "exact")) == len(rows)


def test_where_a_text_ends_tells_messages_apart() -> None:
    assert traits_of(pair("a b", "c")).digest != traits_of(pair("a", "b c")).digest
    spoken = [*pair("a", "b"), *pair("c", "d")]
    assert traits_of(pair("a\x1eassistant\x1fb", "c")).digest != traits_of(spoken[:3]).digest


def test_the_same_rows_stay_in_whatever_order_they_come() -> None:
    rows = [pair(f"Question {n % 7}?", " " * (n % 3) + f"Answer{' ' * (1 + n % 2)}{n % 5}") for n in range(200)]
    expected = kept(rows, "exact")
    assert len(expected) == 35
    for seed in range(5):
        assert kept(random.Random(seed).sample(rows, len(rows)), "exact") == expected


def test_folded_duplicates_are_one_and_the_first_in_code_point_order_stays() -> None:
    rows = [pair("who?", "Ann."), pair("Who?", "ANN"), pair("Who?", "Ann"), pair("Who?", "Bob"), pair("2 * 3", "6")]
    rows += [pair("2 - 3", "6"), pair("?", "!"), pair("!", "!")]
    for seed in range(5):
        stay = kept(random.Random(seed).sample(rows, len(rows)), "folded").values()
        assert sorted(map(str, stay)) == sorted(map(str, [rows[1], *rows[3:]]))


def test_none_is_dropped_where_that_is_off_and_the_order_of_rows_does_not_count() -> None:
    rows = [pair("Who?", "Ann"), pair("Who?", " Ann"), pair("Who?", "Ann"), pair("Who?", "Bob")]
    stay = kept(rows, "off")
    assert len(stay) == 4
    assert kept(rows[::-1], "off") == stay


def test_of_a_cluster_of_near_duplicates_the_longest_stays() -> None:
    text = " ".join(f"word{n}" for n in range(40))
    rows = [pair(f"{text} {end}", "Yes.") for end in ("one", "two", "and the longest")] + [pair("Who?", "Ann")]
    corpus, every = corpus_of(rows), np.arange(len(rows))
    assert near_duplicates(corpus, every, None) == []
    assert near_duplicates(corpus, every, 1.0) == []
    assert sorted(near_duplicates(corpus, every, 0.8)) == [(0, 2), (1, 2)]
