"""Gates: what decides one, after how many rows, and how much more is asked for while nothing does."""

import math
from dataclasses import replace

import numpy as np
import pytest
from found_rows import GATE, found_rows

from pipeline.core.config import GateSettings
from pipeline.report.gates import STEP, Gate, gates, judged_together
from pipeline.report.rows import ModelRows, RowResults

LOSSES = {"base": 1.5, "tuned": 1.0, "F16": 1.0, "Q4_K_M": 1.001, "base-Q8_0": 1.5}
SUM, CAPITAL = ("held_out", "sum"), ("held_out", "capital")


def gate(found: RowResults, name: str, settings: GateSettings = GATE) -> Gate:
    return next(gate for gate in gates(found, settings) if gate.name == name)


def without(found: RowResults, model: str, row: int) -> RowResults:
    """The same where a model's loss on a row is no finite number."""
    nats = found.models[model].nats
    lost = found.models[model].model_copy(update={"nats": (*nats[:row], None, *nats[row + 1 :])})
    return found.model_copy(update={"models": found.models | {model: lost}})


def test_there_is_a_gate_on_the_gain_and_on_each_quantized_file_of_the_tuned_model() -> None:
    found = gates(found_rows(LOSSES), GATE)
    assert [(one.name, one.models) for one in found] == [
        ("gain", ("base", "tuned")),
        ("quantization Q4_K_M", ("Q4_K_M", "F16")),
    ]
    bare = found_rows({name: loss for name, loss in LOSSES.items() if name != "F16"})
    assert gate(bare, "quantization Q4_K_M").models == ("Q4_K_M", "tuned")


@pytest.mark.parametrize(
    ("losses", "settings", "name", "passed"),
    [
        ({}, {}, "gain", True),
        ({"tuned": 1.6}, {}, "gain", False),
        ({"tuned": 1.5}, {}, "gain", None),
        ({}, {"min_gain": 0.7}, "gain", False),
        ({}, {"min_gain": 0.3}, "gain", True),
        ({}, {}, "quantization Q4_K_M", True),
        ({"Q4_K_M": 1.2}, {}, "quantization Q4_K_M", False),
        ({"Q4_K_M": 1.0 + math.log(1.05)}, {}, "quantization Q4_K_M", None),
        ({"Q4_K_M": 1.2}, {"max_quantization_loss": 0.5}, "quantization Q4_K_M", True),
    ],
)
def test_a_difference_passes_fails_or_cannot_be_told(
    losses: dict[str, float], settings: dict[str, float], name: str, passed: bool | None
) -> None:
    assert gate(found_rows(LOSSES | losses), name, replace(GATE, **settings)).passed is passed


def test_what_is_measured_beyond_a_decision_changes_it_not() -> None:
    whole = gate(found_rows(LOSSES), "gain")
    assert whole.decided is not None
    few = found_rows(LOSSES, measured={"base": whole.decided, "tuned": whole.decided + 5})
    cut = gate(few, "gain")
    assert (cut.passed, cut.rows) == (whole.passed, whole.rows)
    assert cut.last == pytest.approx(whole.last)
    assert cut.wanted is None
    before = gate(found_rows(LOSSES, measured={"base": whole.decided - 1}), "gain")
    assert before.decided is None
    assert before.passed is None


def test_nothing_is_decided_by_fewer_rows_than_it_takes_to_tell() -> None:
    far = LOSSES | {"base": 9.0}
    assert gate(found_rows(far), "gain").decided == 20
    assert gate(found_rows(far, rows=19), "gain").passed is None
    more = replace(GATE, min_rows=60)
    assert gate(found_rows(far), "gain", more).decided == 60
    few = gate(found_rows(far, measured={"base": 40}), "gain", more)
    assert (few.passed, few.needed) == (None, 60)
    assert few.last.low > 0


def test_more_is_asked_for_the_less_the_bounds_tell_but_never_more_than_twice() -> None:
    def wanted(tuned: float, have: int = 50) -> int | None:
        some = dict.fromkeys(("base", "tuned"), have)
        return gate(found_rows(LOSSES | {"tuned": tuned}, rows=400, spread=0.3, measured=some), "gain").wanted

    asked = [wanted(tuned) for tuned in (1.0, 1.39, 1.42, 1.4999)]
    assert asked[0] is None
    assert 50 + STEP <= asked[1] <= asked[2] <= asked[3] == 100
    assert wanted(1.4999, 390) == 400
    assert wanted(1.4999, 400) is None


def test_what_is_open_takes_more_than_there_are_however_unlike_its_two_bounds_are() -> None:
    replies = {"base": [True] * 60, "tuned": [number % 20 > 0 for number in range(60)]}
    found = found_rows(LOSSES, right=replies, asked=[SUM] * 60)
    difference, low, high = gate(found, "task held_out/sum").last
    assert high - difference > 1.3 * (difference - low)
    limits = [replace(GATE, max_task_drop=float(limit)) for limit in np.linspace(low, high, 20)[1:-1]]
    still_open = [one for limit in limits if (one := gate(found, "task held_out/sum", limit)).passed is None]
    assert len(still_open) >= 10
    assert all(one.needed is None or one.needed > one.have for one in still_open)


def test_a_row_without_a_finite_loss_fails_its_gates_and_asks_for_no_more() -> None:
    found = without(found_rows(LOSSES, measured=dict.fromkeys(LOSSES, 30)), "Q4_K_M", 7)
    lost = gate(found, "quantization Q4_K_M")
    assert (lost.passed, lost.wanted) == (False, None)
    assert gate(found, "gain").passed


def test_small_tasks_are_judged_by_group_and_smaller_groups_not_at_all() -> None:
    tasks = ["held_out/sum"] * 30 + ["held_out/a"] * 12 + ["held_out/b"] * 8 + ["unasked/a"] * 19
    assert judged_together(tasks, 20) == {"held_out/sum": ("held_out/sum",), "held_out": ("held_out/a", "held_out/b")}
    assert judged_together(tasks, 100) == {}
    assert judged_together([], 20) == {}


def answered(share: float, count: int, seed: int) -> list[bool]:
    return (np.random.default_rng(seed).random(count) < share).tolist()


@pytest.mark.parametrize(("share", "passed"), [(0.9, True), (0.5, False), (0.8, None)])
def test_a_task_passes_by_the_differences_of_its_own_questions(share: float, passed: bool | None) -> None:
    right = {"base": answered(0.9, 400, 1), "tuned": answered(share, 400, 2)}
    kept = {
        name: [one for some in zip(replies, replies, strict=True) for one in some] for name, replies in right.items()
    }
    kept["tuned"][1::2] = kept["base"][1::2]  # of the other task's
    found = found_rows(LOSSES, right=kept, asked=[SUM, CAPITAL] * 400)
    assert gate(found, "task held_out/sum").passed is passed
    capital = gate(found, "task held_out/capital")
    assert capital.passed
    assert capital.last.value == 0


def test_the_order_in_which_a_task_lists_its_items_decides_nothing() -> None:
    items = {"base": {"arc": [1.0] * 400}, "F16": {"arc": [1.0] * 300 + [0.0] * 100}}  # the hard ones last
    found = found_rows(LOSSES, items=items)
    last_ones_fail = gate(found, "task arc of F16")
    assert last_ones_fail.passed is False
    assert last_ones_fail.last.low > GATE.max_task_drop


def test_questions_of_a_rare_task_are_asked_for_as_questions_of_all() -> None:
    asked = [SUM, SUM, SUM, CAPITAL] * 100
    right = {"base": [True] * 40, "tuned": [True] * 40}
    found = found_rows(LOSSES, right=right, asked=asked)
    rare = gate(found, "task held_out/capital")
    assert (len(rare.bounds), rare.have, rare.total) == (10, 40, 400)
    assert rare.wanted == 80


def test_models_are_compared_as_far_as_both_were_measured() -> None:
    found = found_rows(LOSSES, measured={"base": 60, "tuned": 90})
    assert gate(found, "gain").have == 60
    assert isinstance(found.models["base"], ModelRows)


FLIPS = replace(GATE, max_flips=0.2)


@pytest.mark.parametrize(("flipped", "passed"), [(0, True), (10, True), (40, None), (90, False)])
def test_a_quantization_flips_too_many_answers_or_not_whichever_way(flipped: int, passed: bool | None) -> None:
    before = answered(0.6, 200, 1)
    after = [right != (number < flipped) for number, right in enumerate(before)]  # some won, some lost
    order = np.random.default_rng(2).permutation(200)
    right = {name: [replies[place] for place in order] for name, replies in {"F16": before, "Q4_K_M": after}.items()}
    found = gate(found_rows(LOSSES, right=right, asked=[SUM] * 200), "flips Q4_K_M", FLIPS)
    assert found.passed is passed
    assert found.models == ("Q4_K_M", "F16")
    assert (found.have, found.total) == (200, 200)


def test_flips_of_tasks_count_where_each_question_is_right_or_wrong() -> None:
    arc, graded, few = [1.0, 0.0] * 50, [0.5] * 100, [1.0] * 19
    items = {name: {"arc": arc, "graded": graded, "few": few} for name in ("F16", "Q4_K_M")}
    items["Q4_K_M"] = items["Q4_K_M"] | {"arc": arc[::-1]}
    found = [one for one in gates(found_rows(LOSSES, items=items), FLIPS) if one.kind == "flips"]
    assert [(one.name, one.passed) for one in found] == [("flips arc of Q4_K_M", False)]


def test_flips_are_judged_only_where_they_are_to_be_and_questions_suffice() -> None:
    right = {name: [True] * 19 for name in LOSSES}
    few = found_rows(LOSSES, right=right, asked=[SUM] * 19)
    enough = found_rows(LOSSES, right={name: [True] * 20 for name in LOSSES}, asked=[SUM] * 20)
    assert [[one.name for one in gates(found, FLIPS) if one.kind == "flips"] for found in (few, enough)] == [
        [],
        ["flips Q4_K_M"],
    ]
    assert [one for one in gates(enough, GATE) if one.kind == "flips"] == []


FORGETTING = replace(GATE, max_forgetting=0.1)


@pytest.mark.parametrize(
    ("tuned", "passed"), [(1.5, True), (1.0, True), (1.55, True), (1.6, None), (1.65, False), (3.0, False)]
)
def test_a_model_forgets_too_much_or_not_or_it_cannot_be_told(tuned: float, passed: bool | None) -> None:
    found = gate(found_rows(LOSSES | {"tuned": tuned}, general={"notes": 200}), "forgetting notes", FORGETTING)
    assert found.passed is passed
    assert found.models == ("tuned", "base")
    assert found.wanted is None  # all texts are measured at once


def test_forgetting_is_judged_on_each_set_with_texts_enough_and_only_where_it_is_to_be() -> None:
    found = found_rows(LOSSES, general={"many": 50, "few": 19, "none": 0})
    names = [one.name for one in gates(found, FORGETTING) if one.kind == "forgetting"]
    assert names == ["forgetting many"]
    assert [one for one in gates(found, GATE) if one.kind == "forgetting"] == []


def test_a_general_text_without_a_finite_loss_fails() -> None:
    found = found_rows(LOSSES, general={"notes": 50})
    tuned = found.models["tuned"]
    nats = (None, *tuned.general["notes"][1:])
    broken = tuned.model_copy(update={"general": {"notes": nats}})
    lost = found.model_copy(update={"models": found.models | {"tuned": broken}})
    assert gate(lost, "forgetting notes", FORGETTING).passed is False
