"""The verdict on figures at and beyond each threshold."""

import re
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from found_rows import found_rows
from recorded_run import SETTINGS

from pipeline.core.config import GateSettings
from pipeline.report.record import Check, Measurements, Verdict
from pipeline.report.rows import RowResults
from pipeline.report.verdict import judge, outcome, summed_up, verdict_lines

ENOUGH = {"level": 0.05, "min_rows": 50, "min_questions": 40}
GATE = GateSettings(
    min_gain=0.0, max_quantization_loss=0.05, max_flips=0.2, max_task_drop=0.1, max_forgetting=None, **ENOUGH
)
ASKED = {"accuracy": 0.5, "accuracy_by_group": {"held_out": 0.5}, "accuracy_by_task": {"held_out/sum": 0.5}}
MODEL = {"loss": 1.0, "perplexity": 2.0, **ASKED, "tasks": {"arc_easy": 0.4}}
FILE = {
    "of": "tuned",
    "bytes": 1000,
    "loss": 1.0,
    "perplexity": 2.0,
    **ASKED,
    "kl": 1e-4,
    "top_1": 0.99,
    "tokens_per_second": 10.0,
    "first_token_seconds": 0.1,
    "answer_seconds": 0.2,
}
GOOD: dict[str, Any] = {
    "schema_version": 2,
    "model": "tiny",
    "fingerprint": "826cceee20290b65",
    "base": {"path": "owner/tiny", "revision": None},
    "mlflow_run": None,
    "rows": 50,
    "tokens": 1234,
    "questions": 40,
    "base_model": MODEL | {"loss": 1.5},
    "tuned_model": MODEL,
    "gain": {"loss": 0.5, "low": 0.4, "high": 0.6},
    "gguf": {
        "base-Q8_0": FILE | {"of": "base", "perplexity": 90.0},
        "Q4_K_M": FILE | {"perplexity": 2.1},
        "F16": FILE,
    },
    "prompts": [],
    "answers": {name: [] for name in ("base", "tuned", "base-Q8_0", "Q4_K_M", "F16")},
    "lengths": {"reference": [5] * 50, "base": [5] * 40, "tuned": [5] * 40},
    "settings": SETTINGS,
}


LOSSES = {"base": 1.5, "tuned": 1.0, "base-Q8_0": 4.5, "Q4_K_M": 1.02, "F16": 1.0}
RIGHT = dict.fromkeys(LOSSES, [True] * 60)


def judged(
    change: dict[str, Any] | None = None,
    gate: GateSettings = GATE,
    losses: dict[str, float] | None = None,
    rows: RowResults | None = None,
    right: dict[str, list[bool]] | None = None,
) -> Verdict:
    """The verdict where the figures at dotted places are changed, and the losses or the replies of models."""
    evaluation = deepcopy(GOOD)
    for place, value in (change or {}).items():
        *folders, name = place.split(".")
        within = evaluation
        for folder in folders:
            within = within[folder]
        within[name] = value
    ask(evaluation)
    replies = RIGHT | (right or {})
    asked = [("held_out", "sum")] * max(map(len, replies.values()))
    rows = rows or found_rows(LOSSES | (losses or {}), right=replies, asked=asked)
    return judge(Measurements.parse(evaluation, "the sample"), rows, gate)


def ask(evaluation: dict[str, Any]) -> None:
    """Give each question its replies, and take away what is told of them where there is none."""
    for name in ("base", "tuned"):
        evaluation["lengths"][name] = [5] * evaluation["questions"]
    if not evaluation["questions"]:
        for model in (evaluation["base_model"], evaluation["tuned_model"], *evaluation["gguf"].values()):
            for key in ASKED:
                del model[key]


def check(verdict: Verdict, name: str) -> Check:
    return next(check for check in verdict.checks if check.name == name)


def failed(verdict: Verdict) -> list[str]:
    names = [check.name for check in verdict.checks if check.passed is False]
    assert not verdict.passed or not names
    return names


def test_good_figures_pass_with_every_threshold_listed() -> None:
    verdict = judged()
    assert verdict.passed
    names = ["test conversations", "questions", "finite", "gain", "quantization Q4_K_M", "flips Q4_K_M"]
    names.append("task held_out/sum")
    assert [check.name for check in verdict.checks] == names
    assert [check.limit for check in verdict.checks] == [50, 40, 0, 0.0, 0.05, 0.2, 0.1]
    assert verdict_lines(verdict) == ["verdict: pass, 7 checks"]
    assert summed_up(verdict) == "pass"


def test_a_check_says_its_figure_its_bounds_and_how_many_rows_decided() -> None:
    gain = check(judged(), "gain")
    assert gain.low < gain.figure < gain.high
    assert gain.low > 0
    assert (gain.of, gain.rows) == ("test conversation", 50)
    assert re.fullmatch(
        r"from base to tuned the loss falls by 0\.\d{4} \(0\.4\d{3} to 0\.\d{4} with 95% confidence\) "
        r"nats a token; it must be above 0; decided by 50 test conversations",
        gain.what,
    )
    first, last = gain.steps[0], gain.steps[-1]
    assert (first.rows, last.rows) == (20, 200)
    assert last.high - last.low < gain.high - gain.low < first.high - first.low


def test_a_quantization_is_judged_by_the_share_that_its_perplexity_is_higher() -> None:
    found = check(judged(), "quantization Q4_K_M")
    assert found.figure == pytest.approx(0.02, abs=0.01)
    assert found.high <= 0.05
    shown = f"{found.figure:.2%} ({found.low:.2%} to {found.high:.2%} with 95% confidence)"
    assert found.what.startswith(f"the perplexity of Q4_K_M is {shown} above that of F16; ")
    assert "above that of F16; it must be at most 5%; decided by" in found.what


@pytest.mark.parametrize(
    ("losses", "named"),
    [
        ({"tuned": 1.5}, []),  # nobody knows
        ({"tuned": 1.7}, ["gain"]),
        ({"Q4_K_M": 1.3}, ["quantization Q4_K_M"]),
        ({"Q4_K_M": 0.9}, []),
        ({"base-Q8_0": 99.0}, []),
    ],
)
def test_a_loss_fails_where_it_is_beyond_its_threshold_beyond_doubt(losses: dict[str, float], named: list[str]) -> None:
    verdict = judged(losses=losses)
    assert failed(verdict) == named
    assert outcome(verdict) == ("fail" if named else "too few to tell" if "tuned" in losses else "pass")


@pytest.mark.parametrize(
    "change", [{"tuned_model.loss": None}, {"gguf.F16.kl": None}, {"gguf.Q4_K_M.perplexity": None}]
)
def test_a_figure_that_is_no_number_fails(change: dict[str, Any]) -> None:
    assert failed(judged(change)) == ["finite"]


def test_what_nobody_asked_for_is_no_fault() -> None:
    assert failed(judged({"gguf.F16.tokens_per_second": None})) == []


def without(rows: RowResults, *lost: tuple[str, int]) -> RowResults:
    """The same where the losses of some rows are no finite numbers."""
    models = dict(rows.models)
    for name, row in lost:
        nats = models[name].nats
        models[name] = models[name].model_copy(update={"nats": (*nats[:row], None, *nats[row + 1 :])})
    return rows.model_copy(update={"models": models})


def test_a_row_whose_loss_is_no_number_is_named_and_nothing_else_is_lost() -> None:
    rows = found_rows(LOSSES, right=RIGHT, asked=[("held_out", "sum")] * 60)
    verdict = judged({"gguf.Q4_K_M.perplexity": None}, rows=without(rows, ("Q4_K_M", 6), ("Q4_K_M", 60)))
    assert failed(verdict) == ["finite", "quantization Q4_K_M"]
    assert check(verdict, "finite").what == (
        "no finite number: gguf.Q4_K_M.perplexity, Q4_K_M of row 7 of the test split and 1 more"
    )
    assert "nobody knows how much (the loss of a row is no finite number)" in check(verdict, "quantization Q4_K_M").what
    assert check(verdict, "gain").passed


def test_a_diverged_training_fails_and_says_which_figures_are_no_numbers() -> None:
    gone = dict.fromkeys(("gain.loss", "gain.low", "gain.high", "tuned_model.perplexity", "gguf.F16.perplexity"))
    rows = found_rows(LOSSES, right=RIGHT, asked=[("held_out", "sum")] * 60)
    lost = without(rows, *((name, row) for name in ("tuned", "F16") for row in range(200)))
    verdict = judged(gone, rows=lost)
    assert failed(verdict) == ["finite", "gain", "quantization Q4_K_M"]
    assert check(verdict, "finite").what == (
        "no finite number: tuned_model.perplexity, gain.loss, gguf.F16.perplexity, tuned of any row, F16 of any row"
    )


def test_thresholds_are_the_settings() -> None:
    strict = replace(GATE, min_gain=0.8, max_quantization_loss=0.0)
    assert failed(judged(gate=strict)) == ["gain", "quantization Q4_K_M"]
    lenient = replace(GATE, min_gain=-0.6, max_quantization_loss=1.0, max_task_drop=1.0)
    assert judged(losses={"tuned": 1.8, "F16": 1.0}, gate=lenient).passed


def test_a_task_fails_that_is_forgotten_and_small_ones_count_together() -> None:
    forgot = {"tuned": [number % 3 == 0 for number in range(60)]}
    assert failed(judged(right=forgot)) == ["task held_out/sum"]
    asked = [("held_out", ("sum", "capital")[number % 2]) for number in range(60)]
    verdict = judged(rows=found_rows(LOSSES, right=RIGHT | forgot, asked=asked))
    assert failed(verdict) == ["task held_out"]
    assert check(verdict, "task held_out").what.startswith(
        "the accuracy of 2 tasks with fewer than 40 questions each is "
    )
    few = judged(
        rows=found_rows(LOSSES, right=RIGHT | forgot, asked=[("unasked", str(n // 30)) for n in range(60)]),
        gate=replace(GATE, min_questions=61),
    )
    assert [check.name for check in few.checks if check.name.startswith("task")] == []


def test_a_quantization_that_flips_answers_is_named_though_it_keeps_loss_and_accuracy() -> None:
    right = {"F16": [number % 2 == 0 for number in range(60)], "Q4_K_M": [number % 2 == 1 for number in range(60)]}
    verdict = judged({"gguf.Q4_K_M.loss": 1.0}, losses={"Q4_K_M": 1.0}, right=right)
    assert summed_up(verdict) == "fail (flips Q4_K_M)"
    found = check(verdict, "flips Q4_K_M")
    assert (found.figure, found.limit, found.of) == (1.0, 0.2, "question")
    assert re.fullmatch(
        r"100\.0% \(\d\d\.\d% to 100\.0% with 95% confidence\) of the questions are right in one alone of Q4_K_M and "
        r"F16; it must be at most 20%; decided by 13 questions",
        found.what,
    )


def test_without_an_unquantized_file_the_model_itself_is_the_measure() -> None:
    losses = {name: loss for name, loss in LOSSES.items() if name != "F16"}
    found = check(judged(rows=found_rows(losses)), "quantization Q4_K_M")
    assert found.figure == pytest.approx(0.02, abs=0.02)
    assert "above that of tuned" in found.what


def test_what_failed_is_printed_with_its_sentence() -> None:
    lines = verdict_lines(judged(losses={"tuned": 1.7}))
    assert lines[0] == "verdict: fail, 1 of 7 checks"
    assert len(lines) == 2
    assert lines[1].startswith("  gain: from base to tuned the loss falls by -0.2")


def test_what_no_row_decided_says_how_many_more_would() -> None:
    verdict = judged(losses={"tuned": 1.5 - 0.005})
    found = check(verdict, "gain")
    assert found.passed is None
    assert found.rows == 200
    assert found.missing > 200
    assert f"200 test conversations cannot tell, and some {found.missing:,} more would" in found.what
    assert summed_up(verdict) == f"too few to tell: {found.missing:,} more test conversations"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": 49}, "too few to tell: 1 more test conversation"),
        ({"questions": 1}, "too few to tell: 39 more questions"),
        ({"rows": 2, "questions": 39}, "too few to tell: 48 more test conversations and 1 more question"),
        ({"questions": 0}, "pass"),  # nobody asks for any
    ],
)
def test_below_the_stated_numbers_there_is_no_pass(change: dict[str, Any], said: str) -> None:
    verdict = judged(change)
    assert summed_up(verdict) == said
    assert verdict.passed == (said == "pass")
    assert verdict_lines(verdict)[0].startswith(f"verdict: {said}")


def test_what_to_raise_is_named() -> None:
    assert verdict_lines(judged({"rows": 6, "questions": 5})) == [
        "verdict: too few to tell: 44 more test conversations and 35 more questions",
        "  test conversations: 6 test conversations; it takes 50 to tell: raise data.test, or evaluate.max_rows",
        "  questions: 5 questions; it takes 40 to tell: add some to data.questions, or raise evaluate.max_questions",
    ]


def test_too_few_make_no_failure_milder() -> None:
    verdict = judged({"rows": 2, "questions": 1}, losses={"tuned": 1.7})
    assert outcome(verdict) == "fail"
    assert summed_up(verdict) == "fail (gain)"
    assert [line.partition(":")[0] for line in verdict_lines(verdict)] == [
        "verdict",
        "  gain",
        "  test conversations",
        "  questions",
    ]


@pytest.mark.parametrize("rows", [1, 10])
def test_few_conversations_have_no_bounds_and_tell_nothing(rows: int) -> None:
    verdict = judged({"rows": rows}, rows=found_rows(LOSSES, rows=rows))
    gain = check(verdict, "gain")
    assert (gain.passed, gain.low, gain.high, gain.steps) == (None, None, None, ())
    assert "(unbounded)" in gain.what
    assert summed_up(verdict) == f"too few to tell: {50 - rows} more test conversations"
