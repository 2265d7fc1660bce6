"""The verdict on figures at and beyond each threshold."""

from copy import deepcopy
from typing import Any

import pytest
from recorded_run import SETTINGS

from pipeline.core.config import GateSettings
from pipeline.report.record import Measurements, Verdict
from pipeline.report.verdict import judge, outcome, summed_up, verdict_lines

ENOUGH = {"min_rows": 50, "min_questions": 40}
GATE = GateSettings(min_gain=0.0, max_quantization_loss=0.05, max_task_drop=0.1, **ENOUGH)
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


def judged(change: dict[str, Any] | None = None, gate: GateSettings = GATE) -> Verdict:
    """The verdict where the figures at dotted places are changed."""
    evaluation = deepcopy(GOOD)
    for place, value in (change or {}).items():
        *folders, name = place.split(".")
        within = evaluation
        for folder in folders:
            within = within[folder]
        within[name] = value
    ask(evaluation)
    return judge(Measurements.parse(evaluation, "the sample"), gate)


def ask(evaluation: dict[str, Any]) -> None:
    """Give each question its replies, and take away what is told of them where there is none."""
    for name in ("base", "tuned"):
        evaluation["lengths"][name] = [5] * evaluation["questions"]
    if not evaluation["questions"]:
        for model in (evaluation["base_model"], evaluation["tuned_model"], *evaluation["gguf"].values()):
            for key in ASKED:
                del model[key]


def failed(change: dict[str, Any], gate: GateSettings = GATE) -> list[str]:
    verdict = judged(change, gate)
    names = [check.name for check in verdict.checks if check.passed is False]
    assert verdict.passed == (not names)
    assert outcome(verdict) == ("fail" if names else "pass")
    return names


def test_good_figures_pass_with_every_threshold_listed() -> None:
    verdict = judged()
    assert verdict.passed
    names = [
        "test conversations",
        "questions",
        "finite",
        "gain",
        "quantization Q4_K_M",
        "task held_out/sum",
        "task arc_easy",
    ]
    assert [check.name for check in verdict.checks] == names
    assert [check.limit for check in verdict.checks] == [50, 40, 0, 0.0, 0.05, 0.1, 0.1]
    assert verdict.checks[4].figure == pytest.approx(0.05)
    assert verdict_lines(verdict) == ["verdict: pass, 7 checks"]
    assert summed_up(verdict) == "pass"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"gain.low": 0.0}, ["gain"]),
        ({"gain.low": 1e-5}, []),
        ({"gain.low": -0.2, "gain.loss": 0.3}, ["gain"]),  # better in the mean, but not for sure
        ({"gguf.Q4_K_M.perplexity": 2.1001}, ["quantization Q4_K_M"]),
        ({"gguf.Q4_K_M.perplexity": 1.9}, []),
        ({"gguf.base-Q8_0.perplexity": 1e6}, []),
        ({"tuned_model.accuracy_by_task": {"held_out/sum": 0.4}}, []),
        ({"tuned_model.accuracy_by_task": {"held_out/sum": 0.3999}}, ["task held_out/sum"]),
        ({"tuned_model.tasks": {"arc_easy": 0.29}}, ["task arc_easy"]),
        ({"tuned_model.loss": None}, ["finite"]),
        ({"gguf.F16.kl": None}, ["finite"]),
        ({"gguf.F16.tokens_per_second": None}, []),  # nothing was asked
    ],
)
def test_a_figure_fails_beyond_its_threshold_and_not_at_it(change: dict[str, Any], named: list[str]) -> None:
    assert failed(change) == named


def test_a_diverged_training_fails_and_says_which_figures_are_no_numbers() -> None:
    gone = dict.fromkeys(("gain.loss", "gain.low", "gain.high", "tuned_model.perplexity", "gguf.F16.perplexity"))
    assert failed(gone) == ["finite", "gain", "quantization Q4_K_M"]
    said = judged(gone).checks[2].what
    assert said == "no finite number: tuned_model.perplexity, gain.loss, gguf.F16.perplexity"


def test_thresholds_are_the_settings() -> None:
    strict = GateSettings(min_gain=0.45, max_quantization_loss=0.04, max_task_drop=0.0, **ENOUGH)
    assert failed({}, strict) == ["gain", "quantization Q4_K_M"]
    lenient = GateSettings(min_gain=-0.2, max_quantization_loss=1.0, max_task_drop=1.0, **ENOUGH)
    assert failed({"gain.low": -0.1}, lenient) == []


def test_without_an_unquantized_file_the_model_itself_is_the_measure() -> None:
    evaluation = deepcopy(GOOD)
    del evaluation["gguf"]["F16"], evaluation["answers"]["F16"]
    evaluation["tuned_model"]["perplexity"] = 1.9
    verdict = judge(Measurements.parse(evaluation, "the sample"), GATE)
    check = next(check for check in verdict.checks if check.name == "quantization Q4_K_M")
    assert check.figure == pytest.approx(2.1 / 1.9 - 1, abs=1e-6)
    assert "of the model before export" in check.what


def test_what_failed_is_printed_with_its_sentence() -> None:
    lines = verdict_lines(judged({"gain.low": -0.25, "gain.loss": -0.1, "gain.high": 0.05}))
    assert lines[0] == "verdict: fail, 1 of 7 checks"
    assert lines[1:] == [
        "  gain: from base to tuned the loss falls by -0.1000 nats a token, with 95% confidence by -0.2500 to 0.0500; "
        "all of that must be above 0"
    ]


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
    verdict = judged({"rows": 2, "questions": 1, "gain.low": -0.1})
    assert outcome(verdict) == "fail"
    assert summed_up(verdict) == "fail (gain)"
    assert [line.partition(":")[0] for line in verdict_lines(verdict)] == [
        "verdict",
        "  gain",
        "  test conversations",
        "  questions",
    ]


@pytest.mark.parametrize(("fall", "passed"), [(0.5, None), (0.0, False), (-0.5, False)])
def test_one_conversation_has_no_interval_and_can_only_fail(fall: float, passed: bool | None) -> None:
    verdict = judged({"rows": 1, "gain": {"loss": fall, "low": None, "high": None}, "tuned_model.loss_low": None})
    results = {check.name: check.passed for check in verdict.checks}
    assert results["gain"] is passed
    assert results["finite"]
    assert not verdict.passed
    assert outcome(verdict) == ("too few to tell" if passed is None else "fail")
