"""How far each model is measured: until its gates are decided, and no further than there are rows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from found_rows import found_rows

from pipeline.core.composition import compose
from pipeline.core.config import EvaluateSettings, load
from pipeline.evaluation.inputs import Conversation, Extent, Material
from pipeline.evaluation.measure import Measured
from pipeline.evaluation.stopping import measure_until_decided
from pipeline.report.gates import gates
from pipeline.report.rows import RowResults

ROWS, QUESTIONS = 300, 200
FIRST = Extent(70, 50)  # as conf/evaluate has it
LOSSES = {"base": 1.5, "tuned": 1.0, "F16": 1.0, "Q4_K_M": 1.0, "base-Q8_0": 1.5}
RIGHT = {name: [name != "base"] * QUESTIONS for name in LOSSES}


@pytest.fixture(scope="module")
def settings() -> EvaluateSettings:
    """The usual ones."""
    return load(compose(Path("conf"), ["model=llama-3.2-1b"])).evaluate


class Evaluation:
    """Models whose rows are known, and how often each was asked to be measured how far."""

    def __init__(self, settings: EvaluateSettings, losses: dict[str, float], right: dict[str, list[bool]]) -> None:
        asked = [("held_out", "sum")] * QUESTIONS
        self.whole = found_rows(losses, rows=ROWS, right=right, asked=asked)
        conversations = [Conversation(number, "", []) for number in range(ROWS)]
        self.material = Material(None, conversations, [{}] * QUESTIONS, settings, frozenset())  # type: ignore[arg-type]
        self.asked: list[tuple[str, Extent]] = []

    def measure(self, name: str, extent: Extent) -> Measured:
        self.asked.append((name, extent))
        nats, right = self.whole.models[name].nats[: extent.rows], self.whole.models[name].right[: extent.questions]
        return {"nats": list(nats), "replies": [{"reply": "", "tokens": int(r)} for r in right], "answers": []}

    def results(self, found: dict[str, Measured]) -> RowResults:
        models = {
            name: self.whole.models[name].model_copy(
                update={"nats": tuple(one["nats"]), "right": tuple(bool(r["tokens"]) for r in one["replies"])}
            )
            for name, one in found.items()
        }
        return self.whole.model_copy(update={"models": models})

    def run(self) -> dict[str, Extent]:
        """How far each model was measured in the end."""
        found = measure_until_decided(LOSSES, self.measure, self.results, self.material)
        self.passed = {gate.name: gate.passed for gate in gates(self.results(found), self.material.settings.gate)}
        return {name: Extent(len(one["nats"]), len(one["replies"])) for name, one in found.items()}


def evaluated(
    settings: EvaluateSettings, losses: dict[str, float] | None = None, right: dict[str, list[bool]] | None = None
) -> Evaluation:
    return Evaluation(settings, LOSSES | (losses or {}), RIGHT | (right or {}))


def test_where_all_is_clear_each_model_is_measured_once_as_far_as_a_verdict_takes(settings: EvaluateSettings) -> None:
    evaluation = evaluated(settings)
    assert evaluation.run() == dict.fromkeys(LOSSES, FIRST)
    assert [name for name, _ in evaluation.asked] == list(LOSSES)
    assert all(evaluation.passed.values())


def test_only_the_models_of_an_undecided_gate_are_measured_further(settings: EvaluateSettings) -> None:
    evaluation = evaluated(settings, {"Q4_K_M": 1.035})
    extents = evaluation.run()
    assert FIRST.rows < extents["Q4_K_M"].rows == extents["F16"].rows < ROWS
    assert {extents[name] for name in ("base", "tuned", "base-Q8_0")} == {FIRST}
    assert extents["F16"].questions == FIRST.questions
    assert evaluation.passed["quantization Q4_K_M"]


def test_near_a_threshold_all_rows_are_measured_and_none_twice(settings: EvaluateSettings) -> None:
    evaluation = evaluated(settings, {"tuned": 1.5})
    extents = evaluation.run()
    assert extents["base"].rows == extents["tuned"].rows == ROWS
    assert evaluation.passed["gain"] is None
    for name in ("base", "tuned"):
        rows = [extent.rows for asked, extent in evaluation.asked if asked == name]
        assert rows == sorted(set(rows))
        assert len(rows) < 6  # each time the models are loaded anew


def test_questions_go_on_by_themselves(settings: EvaluateSettings) -> None:
    wrong_now_and_then = [number % 20 != 0 for number in range(QUESTIONS)]
    extents = evaluated(settings, right={"base": [True] * QUESTIONS, "tuned": wrong_now_and_then}).run()
    assert FIRST.questions < extents["tuned"].questions == extents["base"].questions <= QUESTIONS
    assert extents["tuned"].rows == FIRST.rows
    assert extents["F16"] == FIRST


def test_all_is_measured_at_once_where_nothing_is_to_stop(settings: EvaluateSettings) -> None:
    evaluation = evaluated(replace(settings, stop_when_sure=False))
    assert evaluation.run() == dict.fromkeys(LOSSES, Extent(ROWS, QUESTIONS))
    assert len(evaluation.asked) == len(LOSSES)


@pytest.mark.parametrize("losses", [{}, {"Q4_K_M": 1.045}, {"Q4_K_M": 1.2}, {"tuned": 1.6}])
def test_the_verdict_is_that_of_all_rows(settings: EvaluateSettings, losses: dict[str, float]) -> None:
    stopped, whole = evaluated(settings, losses), evaluated(replace(settings, stop_when_sure=False), losses)
    stopped.run(), whole.run()
    assert stopped.passed == whole.passed


def test_few_rows_and_questions_are_all_measured(settings: EvaluateSettings) -> None:
    evaluation = evaluated(settings)
    few: Sequence[Conversation] = evaluation.material.conversations[:7]
    evaluation.material = replace(evaluation.material, conversations=list(few), questions=[])
    evaluation.whole = found_rows(LOSSES, rows=7)
    assert evaluation.run() == dict.fromkeys(LOSSES, Extent(7, 0))
