"""What is said of two files whose rows are known: by preferences, and by other qualities beside them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from found_rows import found_rows

from pipeline.comparison.pairs import Judgement, Side, judge
from pipeline.core.composition import compose
from pipeline.core.config import CompareSettings, load
from pipeline.report.rows import RowResults

COMPARE = load(compose(Path(__file__).parents[3] / "conf")).compare
BY_PREFERENCE: CompareSettings = replace(COMPARE, quality="preference")
PAIRS = 200
BETTER = {"new": [True] * 150 + [False] * 50, "old": [True] * 100 + [False] * 100}  # 50 won, none lost
EVEN = {"new": [True] * 100 + [False] * 100, "old": [False] * 100 + [True] * 100}
ALIKE = {"new": 2.0, "old": 2.0}


def said(rows: RowResults, settings: CompareSettings = BY_PREFERENCE) -> Judgement:
    return judge(Side(rows, "new"), Side(rows, "old"), settings)


def findings(found: Judgement) -> dict[str, str]:
    return {one.figure: one.finding for one in found.figures}


def test_better_in_pairs_and_no_worse_in_all_else_is_better() -> None:
    found = said(found_rows(ALIKE, rows=300, spread=0.02, preferred=BETTER, general={"texts": 250}))
    assert findings(found) == {"loss": "no worse", "general texts": "no worse", "preferences": "better"}
    assert (found.finding, found.failing, found.hopeless) == ("better", [], False)
    assert "preferences better, +25.0 points (" in str(found)
    assert "on 200 pairs (50 won, 0 lost), which could have shown +" in str(found)


def test_no_better_loss_makes_up_for_pairs_that_are_not_better() -> None:
    found = said(found_rows({"new": 1.5, "old": 2.0}, rows=300, preferred=EVEN))
    assert findings(found) == {"loss": "better", "preferences": "cannot tell"}
    assert (found.finding, found.hopeless) == ("cannot tell", True)
    assert found.more is None  # won and lost are as many


def test_more_pairs_are_asked_for_where_they_cannot_tell() -> None:
    some = {"new": [True] * 30 + [False] * 15 + [True] * 155, "old": [False] * 30 + [True] * 170}
    found = said(found_rows(ALIKE, rows=300, preferred=some))
    assert str(found).startswith("cannot tell, ")
    assert found.more is not None
    assert f"cannot tell, {found.more.more:,} more pairs would: loss" in str(found)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"losses": {"new": 2.05, "old": 2.0}}, "loss"),  # worse beyond doubt
        ({"rows": 60}, "loss"),  # too few rows for any bounds
        ({"items": {"new": {"arc": [0.0] * 40}, "old": {"arc": [0.0] * 30 + [1.0] * 10}}}, "arc"),  # worse, or seems so
        (
            {"right": {"new": [False] * 40, "old": [True] * 4 + [False] * 36}, "asked": [("held", "sum")] * 40},
            "accuracy",
        ),
    ],
)
def test_what_keeps_a_file_back_that_is_better_in_pairs_is_named(more: dict, why: str) -> None:  # type: ignore[type-arg]
    found = said(found_rows(**{"losses": ALIKE, "rows": 300, "preferred": BETTER} | more))
    assert findings(found)["preferences"] == "better"
    assert (found.finding, found.failing) == ("cannot tell", [why])
    assert f"cannot tell (held back by {why})" in str(found)
    told = any(one.finding == "worse" for one in found.figures)  # which no more rows mend
    assert not (told and found.more)


def test_few_questions_that_seem_no_worse_keep_nothing_back() -> None:
    items = {"new": {"arc": [1.0] * 20 + [0.0] * 20}, "old": {"arc": [0.0] * 20 + [1.0] * 20}}
    found = said(found_rows(ALIKE, rows=300, preferred=BETTER, items=items))
    assert findings(found)["arc"] == "cannot tell"
    assert found.finding == "better"


@pytest.mark.parametrize(("worse", "finding"), [(0.0, "better"), (0.02, "cannot tell")])
def test_few_general_texts_are_not_to_seem_worse_by_more_than_the_margin(worse: float, finding: str) -> None:
    rows = found_rows(ALIKE, rows=300, preferred=BETTER, general={"texts": 70})
    nats, tokens = rows.models["old"].general["texts"], rows.general["texts"]
    general = {"texts": tuple((one or 0) + worse * count for one, count in zip(nats, tokens, strict=True))}
    models = rows.models | {"new": rows.models["new"].model_copy(update={"general": general})}
    found = said(rows.model_copy(update={"models": models}))
    assert findings(found)["general texts"] == "cannot tell"
    assert (found.finding, found.failing) == (finding, ["general texts"] if worse else [])


def test_pairs_that_both_were_asked_count_alone() -> None:
    rows = found_rows(ALIKE, rows=300, preferred=BETTER)
    other = rows.model_copy(
        update={"pairs": tuple(f"other{one}" if place < 50 else one for place, one in enumerate(rows.pairs))}
    )
    found = judge(Side(rows, "new"), Side(other, "old"), BY_PREFERENCE)
    assert next(one.rows for one in found.figures if one.figure == "preferences") == PAIRS - 50
    none = rows.model_copy(update={"pairs": tuple(f"other{one}" for one in rows.pairs)})
    found = judge(Side(rows, "new"), Side(none, "old"), BY_PREFERENCE)
    assert (found.finding, found.hopeless, found.apart) == (
        "cannot tell",
        True,
        ("no pair of answers is common to both",),
    )
    found = said(found_rows(ALIKE, rows=300))
    assert found.apart == ("no pairs of answers are held out, which `data.preferences=learn` does",)


@pytest.mark.parametrize("whose", ["new", "old"])
def test_a_pair_without_a_finite_number_is_named_and_promotes_nothing(whose: str) -> None:
    preferred: dict[str, Sequence[bool | None]] = {**BETTER, whose: [*BETTER[whose][:-1], None]}
    found = said(found_rows(ALIKE, rows=300, preferred=preferred))
    assert found.apart == (f"how likely the {whose} one finds the answers of pair 200 is no finite number",)
    assert found.hopeless


@pytest.mark.parametrize("quality", ["accuracy", "loss"])
def test_by_other_qualities_pairs_promote_nothing_and_are_never_worse_in_silence(quality: str) -> None:
    settings = replace(COMPARE, quality=quality)
    found = said(found_rows(ALIKE, rows=300, preferred=BETTER), settings)
    assert (found.finding, findings(found)["preferences"]) == ("no worse", "better")
    worse = {"new": BETTER["old"], "old": BETTER["new"]}
    assert said(found_rows(ALIKE, rows=300, preferred=worse), settings).finding == "worse"
    found = said(found_rows({"new": 1.5, "old": 2.0}, rows=300, preferred=worse), settings)
    assert found.finding == "cannot tell"
    assert "preferences worse, -25.0 points" in str(found)


def test_of_a_thousand_that_are_as_good_hardly_one_is_promoted() -> None:
    random, rows = np.random.default_rng(8), found_rows(ALIKE, rows=200)
    names, promoted = tuple(f"pair{number}" for number in range(PAIRS)), 0
    for taste in random.uniform(
        0.4, 0.9, 1000
    ):  # each of both is as often right as the other, and not in the same pairs
        drawn = (random.random((2, PAIRS)) < taste).tolist()
        models = {
            name: rows.models[name].model_copy(update={"preferred": tuple(one)})
            for name, one in zip(("new", "old"), drawn, strict=True)
        }
        promoted += said(rows.model_copy(update={"pairs": names, "models": models})).finding == "better"
    assert promoted <= 10
