import random

from pipeline.core.formats import Messages
from pipeline.data.dedup import digest, drop_duplicates, drop_near_duplicates, duplicate_keys, normalize, repeats


def pair(question: str, answer: str) -> Messages:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_whitespace_and_composition_do_not_tell_texts_apart() -> None:
    assert normalize(" Cafe\u0301 \n\t au  lait\u00a0") == "Caf\u00e9 au lait"
    assert digest(pair("Cafe\u0301?", "Yes.\n")) == digest(pair(" Caf\u00e9?", "Yes."))


def test_case_punctuation_and_roles_do() -> None:
    rows = [pair("Who?", "Ann"), pair("who?", "Ann"), pair("Who", "Ann"), pair("Who?", "Ann.")]
    rows.append([{"role": "system", "content": "Who?"}, {"role": "assistant", "content": "Ann"}])
    assert len(drop_duplicates(rows)) == len(rows)


def test_where_a_text_ends_tells_messages_apart() -> None:
    assert digest(pair("a b", "c")) != digest(pair("a", "b c"))
    assert digest(pair("a\x1eassistant\x1fb", "c")) != digest([*pair("a", "b"), {"role": "assistant", "content": "c"}])


def test_the_same_rows_stay_in_whatever_order_they_come() -> None:
    rows = [pair(f"Question {n % 7}?", " " * (n % 3) + f"Answer{' ' * (1 + n % 2)}{n % 5}") for n in range(200)]
    kept = drop_duplicates(rows)
    assert len(kept) == 35
    for seed in range(5):
        assert drop_duplicates(random.Random(seed).sample(rows, len(rows))) == kept


def test_folded_duplicates_are_one_and_the_first_in_code_point_order_stays() -> None:
    rows = [pair("who?", "Ann."), pair("Who?", "ANN"), pair("Who?", "Ann"), pair("Who?", "Bob"), pair("2 * 3", "6")]
    rows += [pair("2 - 3", "6"), pair("?", "!"), pair("!", "!")]
    for seed in range(5):
        shuffled = random.Random(seed).sample(rows, len(rows))
        kept = list(drop_duplicates(shuffled, duplicate_keys(shuffled, "folded")).values())
        assert sorted(map(str, kept)) == sorted(map(str, [rows[1], *rows[3:]]))


def test_none_is_dropped_where_that_is_off_and_the_order_of_rows_does_not_count() -> None:
    rows = [pair("Who?", "Ann"), pair("Who?", " Ann"), pair("Who?", "Ann"), pair("Who?", "Bob")]
    kept = drop_duplicates(rows, duplicate_keys(rows, "off"))
    assert len(kept) == 4
    assert drop_duplicates(rows[::-1], duplicate_keys(rows[::-1], "off")) == kept


def test_repeats_are_counted_where_they_stand() -> None:
    assert repeats(["x", "y", "x", "x"], ["a", "a", "a", "b"]) == {"a": 1, "b": 1}


def test_of_a_cluster_of_near_duplicates_the_longest_stays() -> None:
    text = " ".join(f"word{n}" for n in range(40))
    rows = [pair(f"{text} {end}", "Yes.") for end in ("one", "two", "and the longest")] + [pair("Who?", "Ann")]
    distinct = drop_duplicates(rows)
    assert drop_near_duplicates(distinct, None) == distinct
    assert list(drop_near_duplicates(distinct, 1.0)) == list(distinct)
    assert sorted(map(str, drop_near_duplicates(distinct, 0.8).values())) == sorted(map(str, rows[2:]))
