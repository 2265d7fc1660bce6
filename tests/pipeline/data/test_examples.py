from hashlib import blake2b
from random import Random

from pipeline.data.examples import DRAWN, SHOWN_GROUPS, SHOWN_MEMBERS, Examples


def examples(texts: list[str]) -> Examples:
    return Examples(7, lambda row: blake2b(texts[row].encode()).digest())


def test_the_same_pairs_are_drawn_whatever_their_order_and_numbers():
    texts = [f"row {number}" for number in range(400)]
    turned = list(reversed(texts))
    drawn, other = examples(texts), examples(turned)
    pairs = [(number, number + 200) for number in range(200)]
    drawn.left_out("duplicates", pairs)
    other.left_out("duplicates", [(399 - dropped, 399 - kept) for dropped, kept in Random(1).sample(pairs, len(pairs))])
    shown = [(texts[one.dropped], texts[one.kept]) for one in drawn.left["duplicates"]]
    assert len(shown) == DRAWN
    assert shown == [(turned[one.dropped], turned[one.kept]) for one in other.left["duplicates"]]


def test_of_many_rows_that_give_way_to_the_same_one_is_drawn():
    drawn = examples([f"row {number}" for number in range(100)])
    drawn.left_out("near_duplicates", ((number, 0) for number in range(1, 100)))
    (left,) = drawn.left["near_duplicates"]
    assert left.kept == 0


def test_the_largest_groups_are_shown_with_some_members_and_all_are_counted():
    groups = [list(range(start, start + size)) for start, size in ((0, 1), (1, 5), (6, 2), (8, 2), (10, 9))]
    groups += [[number, number + 1] for number in range(20, 1400, 2)]
    drawn = examples([f"row {number}" for number in range(1400)])
    drawn.hang_together("components", groups)
    found = drawn.groups["components"]
    assert found.sizes == {1: 1, 5: 1, 9: 1, 2: 692}
    assert [group.rows for group in found.largest] == [9, 5, 2, 2, 2]
    assert len(found.largest) == SHOWN_GROUPS
    assert len(found.largest[0].members) == SHOWN_MEMBERS
    assert set(found.largest[0].members) < set(groups[4])
