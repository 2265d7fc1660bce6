"""Topics, and rows that go so that no topic and no length has too much."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from pipeline.core.data_settings import NO_CLEANING
from pipeline.core.formats import Messages
from pipeline.data.balance import balance, length_of
from pipeline.data.topics import NONE, find_topics
from pipeline.data.traits import traits_of

SUBJECTS = {
    "bread": "flour yeast dough oven crust bake knead water salt loaf",
    "chess": "pawn queen rook bishop knight opening endgame checkmate castle board",
    "space": "planet orbit rocket moon star galaxy telescope gravity comet satellite",
    "garden": "soil seeds roots compost pruning roses hedge lawn weeds watering",
}


def prompts(subject: str, count: int, draw: Random) -> list[str]:
    return [f"Tell me about {' and '.join(draw.sample(SUBJECTS[subject].split(), 4))}, please." for _ in range(count)]


def chats(count: int) -> list[Messages]:
    draw = Random(1)
    asked = [prompt for subject in SUBJECTS for prompt in prompts(subject, count, draw)] + prompts("bread", count, draw)
    return [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": f"Answer {number}. " * (1 + number % 4)}]
        for number, prompt in enumerate(asked)
    ]


def kept(rows: Sequence[Messages], **settings: float) -> tuple[list[str], dict[str, int]]:
    """Return the texts of the rows that stay, and what went."""
    found = balance(
        range(len(rows)),
        lambda numbers: [rows[number] for number in numbers],
        lambda number: traits_of(rows[number]).digest,
        replace(NO_CLEANING, **settings),
        seed=5,
    )
    return [rows[number][1]["content"] for number in found.rows], found.left_out


def test_prompts_with_the_same_telling_words_are_of_one_topic() -> None:
    draw = Random(2)
    by_subject = {subject: prompts(subject, 60, draw) for subject in SUBJECTS}
    asked = [prompt for some in by_subject.values() for prompt in some]
    draw.shuffle(asked)
    topics = find_topics(asked, seed=0)
    assert topics
    found = {subject: set(topics.of(some).tolist()) for subject, some in by_subject.items()}
    assert all(not found[one] & found[other] for one in found for other in found if one != other)
    assert topics.of(["Zwölf Boxkämpfer", ""]).tolist() == [NONE, NONE]
    named = topics.named(next(iter(found["chess"]))).split(" / ")
    assert set(named) <= set(SUBJECTS["chess"].split())


def test_prompts_that_share_nothing_have_no_topics() -> None:
    assert find_topics([f"word{number} other{number}" for number in range(100)], seed=0) is None
    assert find_topics([], seed=0) is None


def test_no_topic_has_more_than_its_share() -> None:
    rows = chats(50)
    stayed, left_out = kept(rows, topic_share=0.04)
    assert sum(left_out.values()) == len(rows) - len(stayed) > 0
    assert all(key.startswith("topic ") for key in left_out)
    assert len(stayed) <= 17 * 10  # of 16 topics and none, 0.04 of 250 rows each
    assert kept(rows, topic_share=1.0) == ([row[1]["content"] for row in rows], {})


def test_no_length_has_more_than_its_share() -> None:
    rows = chats(50)
    stayed, left_out = kept(rows, length_share=0.3)
    lengths = Counter(length_of(row) for row in rows if row[1]["content"] in stayed)
    assert max(lengths.values()) == 75
    assert sum(left_out.values()) == len(rows) - len(stayed)


def test_buckets_of_lengths_double() -> None:
    chat: Messages = [{"role": "user", "content": "a b c"}, {"role": "assistant", "content": "d e f g"}]
    assert length_of(chat) == "4 to 7 words"
    assert length_of([*chat, {"role": "user", "content": "h"}]) == "8 to 15 words"


def test_which_rows_stay_does_not_go_by_their_order() -> None:
    rows = chats(50)
    stayed, left_out = kept(rows, topic_share=0.04, length_share=0.2)
    Random(7).shuffle(rows)
    again, also = kept(rows, topic_share=0.04, length_share=0.2)
    assert sorted(again) == sorted(stayed)
    assert also == left_out
