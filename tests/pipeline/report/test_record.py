"""What those who read an evaluation presume: where one thing is spoilt, the reader names it in one line."""

import copy
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import recorded_run
from evaluation_sample import ask, sample
from found_rows import GATE, found_rows
from records import record
from rich.console import Console

from common.errors import UserError
from pipeline.commands import promote, summary
from pipeline.commands.compare import compared
from pipeline.comparison import report as comparison
from pipeline.comparison.runs import EvaluatedRun
from pipeline.core.config import CompareSettings, MarginSettings
from pipeline.core.records import Lineage, Manifest, UnreadableError
from pipeline.publishing.card import model_card, model_readme
from pipeline.report.curve import read_curve
from pipeline.report.files import write
from pipeline.report.markdown import markdown
from pipeline.report.numbers import numbers
from pipeline.report.page import page
from pipeline.report.record import Evaluation, Measurements
from pipeline.report.verdict import judge, verdict_lines
from pipeline.stages.report import require_one_training

Tree = dict[str, Any]
PLACE = "evaluation.json of run 7"
ENOUGH = replace(GATE, min_rows=50, min_questions=40)
MARGIN = MarginSettings(loss=0.01, accuracy=0.02)
BUDGETS = CompareSettings(
    quality="accuracy", max_answer_seconds=0.05, max_gguf_mb=0.0025, max_memory_mb=None, level=0.005, margin=MARGIN
)


def refused(tree: Tree) -> str:
    """What is wrong with it, as the one line says."""
    with pytest.raises(UnreadableError) as raised:
        Evaluation.parse(tree, PLACE)
    start, end = f"{PLACE} does not hold what it should: ", "; make it again: `dvc repro -sf report`"
    said = str(raised.value)
    assert said.startswith(start)
    assert said.endswith(end)
    assert "\n" not in said
    return said.removeprefix(start).removesuffix(end)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda t: t["gain"].update(low=None), "gain: gain has one bound alone"),
        (lambda t: t["gain"].update(high=1.6), "gain: the bounds of gain are the wrong way round, 1.6312 and 1.6"),
        (lambda t: t["tuned_model"].update(loss_high=None), "tuned_model: loss has one bound alone"),
        (lambda t: t["gguf"]["F16"].update(accuracy_low=None), "gguf.F16: accuracy has one bound alone"),
        (
            lambda t: t["base_model"].update(perplexity_low=9.0),
            "base_model: the bounds of perplexity are the wrong way round, 9 and ",
        ),
        (lambda t: t["gguf"]["F16"].update(perplexity=0), "gguf.F16.perplexity: input should be greater than 0"),
        (lambda t: t["tuned_model"].update(perplexity=-1), "tuned_model.perplexity: input should be greater than 0"),
        (lambda t: t["tuned_model"].update(loss=float("nan")), "tuned_model.loss: input should be a finite number"),
        (
            lambda t: t["tuned_model"].update(accuracy=1.2),
            "tuned_model.accuracy: input should be less than or equal to 1",
        ),
        (
            lambda t: t["tuned_model"].update(accuracy_by_task={}),
            "tuned_model: of accuracy, accuracy_by_group and accuracy_by_task one is missing",
        ),
        (
            lambda t: t["tuned_model"]["accuracy_by_task"].pop("held_out/sum"),
            "accuracy_by_task: tuned has others than base",
        ),
        (
            lambda t: t["gguf"]["Q8_0"]["accuracy_by_group"].pop("unasked"),
            "accuracy_by_group: Q8_0 has others than base",
        ),
        (
            lambda t: t["base_model"].update(tasks={"arc_easy": 0.4}),
            "tasks: base has some, and nothing to hold them against",
        ),
        (
            lambda t: [t["base_model"].update(tasks={"arc": 0.4}), t["gguf"]["Q8_0"].update(tasks={"piqa": 0.4})],
            "tasks: Q8_0 has others than base",
        ),
        (lambda t: t.update(questions=0), "questions: 0 of them, and base has an accuracy"),
        (lambda t: [ask(t), t.update(questions=2)], "questions: 2 of them, and base has no accuracy"),
        (lambda t: t.update(rows=-1), "rows: input should be greater than or equal to 0"),
        (lambda t: t.update(tokens=10**400), "tokens: input should be less than 9223372036854775808"),
        (lambda t: t["gguf"]["Q8_0"].update(bytes=-1), "gguf.Q8_0.bytes: input should be greater than or equal to 0"),
        (lambda t: t["gguf"]["Q8_0"].update(of="base"), "gguf.Q8_0: of is base, which its name is not of"),
        (lambda t: t["gguf"]["base-Q8_0"].update(of="tuned"), "gguf.base-Q8_0: of is tuned, which its name is not of"),
        (lambda t: t["gguf"].update({"[/b]": t["gguf"].pop("F16")}), "gguf.[/b].[key]: string should match pattern"),
        (
            lambda t: t["answers"].pop("base-Q8_0"),
            "answers: of base, tuned, F16, Q8_0, Q4_K_M, not of base, tuned, F16, Q8_0, Q4_K_M, base-Q8_0",
        ),
        (lambda t: t.update(answers={}), "answers: of nobody, not of base, tuned, F16, Q8_0, Q4_K_M, base-Q8_0"),
        (lambda t: t["answers"]["F16"].pop(), "answers.F16: 3 of them to 4 prompts"),
        (lambda t: t["prompts"].append("Who?"), "answers.base: 4 of them to 5 prompts"),
        (lambda t: t["answers"]["F16"][2].update(seconds=-0.1), "answers.F16.2.seconds: input should be greater than"),
        (lambda t: t["lengths"].pop("base"), "lengths: of reference, tuned, not of reference, base, tuned"),
        (lambda t: t["lengths"]["tuned"].append(7), "lengths.tuned: 578 of them for 577 replies"),
        (lambda t: t["lengths"]["tuned"].insert(0, -7), "lengths.tuned.0: input should be greater than or equal to 0"),
        (lambda t: t["settings"].pop("evaluate"), "settings.evaluate: field required"),
        (lambda t: t["settings"]["train"].pop("lr"), "settings.train.lr: field required"),
        (lambda t: t["settings"]["train"].update(lora=8), "settings.train.lora: input should be settings"),
        (lambda t: t["settings"]["data"].update(source="hub"), "settings.data.path: input should be a text"),
        (lambda t: t["settings"]["data"].update(name=["a"]), "settings.data.name: input should be a text"),
        (lambda t: t["verdict"]["checks"][2].update(passed=False), "verdict: passed: its checks say otherwise"),
        (lambda t: t["verdict"].update(passed=False), "verdict: passed: its checks say otherwise"),
        (lambda t: t["verdict"].update(checks=[]), "verdict.checks: tuple should have at least 1 item"),
        (
            lambda t: t["training"].update(fingerprint="0" * 16),
            "training.fingerprint: 0000000000000000, and all else is of 826cceee20290b65",
        ),
        (lambda t: t.update(rows=301), "rows: 301 were measured, and 300 prepared"),
        (
            lambda t: t["prepared"].update(questions={"given": 5, "in_training": 0, "kept": 5, "groups": {"a": 5}}),
            "questions: 573 were asked, and 5 prepared",
        ),
        (
            lambda t: t["prepared"]["splits"].pop("test"),
            "prepared: splits: they are train, validation, not train, validation and test",
        ),
        (
            lambda t: t["prepared"].update(duplicates=0),
            "prepared: splits: 6,000 rows, of 6,044 usable and distinct ones",
        ),
        (
            lambda t: t["prepared"]["files"][0].update(rows=6043),
            "prepared.files.0: 6,044 usable rows and 56 dropped ones are not 6,043",
        ),
        (
            lambda t: t["prepared"]["questions"].update(given=573),
            "prepared.questions: 573 kept and 7 in training are not the 573 given",
        ),
        (
            lambda t: t["prepared"]["questions"]["groups"].pop("unasked"),
            "prepared.questions: the groups have 482, and 573 are kept",
        ),
        (
            lambda t: t["prepared"]["characters"]["user"].pop("<= 32"),
            "prepared: characters: counted by different lengths from role to role",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_by_field_and_reason(spoil: Callable[[Tree], object], said: str) -> None:
    tree = sample()
    spoil(tree)
    assert refused(tree).startswith(said)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["gain"].update(loss=None, low=None, high=None),
        lambda t: t["gain"].update(low=None, high=None),  # of a single conversation
        lambda t: t["tuned_model"].update(loss=None, loss_low=None, loss_high=None, perplexity=None),
        lambda t: t["tuned_model"].update(loss=700.0, loss_high=720.0, perplexity=1.014e304, perplexity_high=None),
        lambda t: t["gguf"]["Q4_K_M"].update(kl=None, top_1=None, tokens_per_second=None),
        lambda t: t["settings"]["train"].update(setting_of_another_version=1),
        lambda t: t.update(rows=200),  # evaluate.max_rows
        lambda t: t.update(training=None, prepared=None, curve=[]),
        ask,
    ],
)
def test_a_diverged_model_and_a_small_evaluation_are_records(change: Callable[[Tree], object]) -> None:
    tree = sample()
    change(tree)
    assert record(tree).tree() == tree


# --- Whatever is wrong with a record, it is refused in one line, or everything that is made of it can be made. ---

NAMES = "[/b] $\\frac$ $^$ <b>|`\n"  # markup, a formula, HTML, Markdown
VALUES: list[object] = [None, 0, -1, 0.5, 1e308, -1e308, "", NAMES, "../x", [], {}, True, [[1]], {"x": {"y": 1}}]
MANIFEST = Manifest.parse(recorded_run.manifest(), "the sample")
LINEAGE = Lineage.parse(recorded_run.lineage(), "the sample")
BY_LOSS = CompareSettings(
    quality="loss", max_answer_seconds=None, max_gguf_mb=None, max_memory_mb=None, level=0.005, margin=MARGIN
)
FUZZED = 300


def places(tree: object, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a tree; of a list the first three are as good as all."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree[:3]) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*place, key)
        yield from places(value, (*place, key))


def spoilt(tree: Tree, place: tuple[Any, ...], how: int) -> Tree:
    """A copy with one element dropped, repeated, negated, renamed, or of another value."""
    tree = copy.deepcopy(tree)
    within: Any = tree
    for key in place[:-1]:
        within = within[key]
    key, value = place[-1], within[place[-1]]
    match how:
        case 0:
            del within[key]
        case 1 if isinstance(within, list):
            within.insert(key, copy.deepcopy(value))
        case 1:
            within[f"{key}2"] = copy.deepcopy(value)
        case 2 if type(value) in (int, float):
            within[key] = -value
        case 2 if isinstance(within, dict):
            within[NAMES] = within.pop(key)
        case _:
            within[key] = copy.deepcopy(VALUES[how % len(VALUES)])
    return tree


def spoilt_ones(tree: Tree, seed: int) -> Iterator[str]:
    """FUZZED of all ways to spoil a tree, as JSON."""
    ways = [(place, how) for place in places(tree) for how in range(3 + len(VALUES))]
    for place, how in random.Random(seed).sample(ways, min(FUZZED, len(ways))):
        yield json.dumps(spoilt(tree, place, how))


def show_all(text: str, folder: Path) -> None:
    """What is made of an evaluation, but for pictures, which take a quarter of a second each."""
    evaluation = Evaluation.parse_text(text, PLACE)
    texts = [page(evaluation), markdown(evaluation), json.dumps(numbers(evaluation), allow_nan=False)]
    texts.append(model_readme(evaluation, MANIFEST, LINEAGE, "owner/tiny", ("gguf", "adapter", "merged")))
    evaluation.write(folder / "reports/evaluation.json")
    summary.run()
    run = EvaluatedRun(evaluation.model, "workspace", evaluation)
    both = compared([run, EvaluatedRun("other", "other", record(recorded_run.evaluation()))], BUDGETS)
    comparison.show(Console(file=StringIO()), both)
    texts += [comparison.markdown(both), json.dumps(both, allow_nan=False)]
    "".join(texts).encode()
    file = promote.chosen(run.files, BY_LOSS, None)
    tags = promote.lineage(run, file, Path("tiny.gguf"), "ab" * 32)
    assert tags["quantization"] == file.type


def judge_all(measurements: str, manifest: str) -> None:
    """What the report stage makes of what evaluate and export have left."""
    measured, files = Measurements.parse_text(measurements, PLACE), Manifest.parse_text(manifest, PLACE)
    require_one_training(measured, files, LINEAGE)
    verdict = judge(measured, found_rows(dict.fromkeys(measured.models, 1.0)), ENOUGH)
    known = {name: getattr(measured, name) for name in measured.model_fields_set}
    evaluation = Evaluation(**known, verdict=verdict, training=None, curve=(), prepared=None)
    texts = [*verdict_lines(verdict), json.dumps(model_card(evaluation, files, LINEAGE), allow_nan=False)]
    "".join([*texts, model_readme(evaluation, files, LINEAGE)]).encode()


def refusals(makers: Iterable[Callable[[], None]]) -> list[str]:
    """The lines that some of them end with; all others end well."""
    lines = []
    for make in makers:
        try:
            make()
        except UserError as error:
            lines.append(str(error))
    return lines


def test_an_evaluation_that_is_spoilt_anywhere_is_refused_in_a_line_or_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("reports").mkdir()
    lines = refusals(partial(show_all, text, tmp_path) for text in spoilt_ones(recorded_run.evaluation(), seed=1))
    assert FUZZED // 10 < len(lines) < FUZZED - FUZZED // 10
    assert not [line for line in lines if "\n" in line]


def test_measurements_and_a_manifest_that_are_spoilt_anywhere_are_refused_in_a_line_or_judged() -> None:
    evaluation, manifest = recorded_run.evaluation(), recorded_run.manifest()
    measurements = {name: evaluation[name] for name in Measurements.model_fields if name in evaluation}
    pairs = [(text, json.dumps(manifest)) for text in spoilt_ones(measurements, seed=2)]
    pairs += [(json.dumps(measurements), text) for text in spoilt_ones(manifest, seed=3)]
    lines = refusals(partial(judge_all, *pair) for pair in pairs)
    assert FUZZED // 10 < len(lines) < 2 * FUZZED - FUZZED // 10
    assert not [line for line in lines if "\n" in line]


def test_pictures_are_drawn_of_names_that_look_like_formulas(tmp_path: Path) -> None:
    tree = json.loads(
        json.dumps(recorded_run.evaluation()).replace("held_out/sum", "held_out/$^$").replace("tiny", "$_$")
    )
    write(record(tree), tmp_path)
    comparison.write(tmp_path, compared([EvaluatedRun("$^$", "workspace", record(tree))], BUDGETS))
    assert (tmp_path / "evaluation.png").stat().st_size > 0
    assert "$^$" in (tmp_path / "compare.svg").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "step,split\n1,train\n",
        "step,split,loss\n1,train\n",
        "step,split,loss\nx,train,1\n",
        "step,split,loss\n1,train,nan\n",
    ],
)
def test_a_damaged_loss_curve_says_so(text: str, tmp_path: Path) -> None:
    path = tmp_path / "loss.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=r"loss.csv is not as train wrote it; run `dvc checkout .*`, or `dvc repro -sf"):
        read_curve(path)
    path.write_text("step,split,loss\n2,validation,1.75\n1,train,2.5\n")
    assert [(point.step, point.loss, point.validation_loss) for point in read_curve(path)] == [
        (1, 2.5, None),
        (2, None, 1.75),
    ]
