"""Comparing runs: by the rule alone, out of a real MLflow and real DVC experiments, and what is written."""

import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import mlflow
import pytest
from evaluated import evaluation, rows_of
from evaluated import settings as settings_of
from records import record
from rich.console import Console

from common.errors import UserError
from pipeline import cli
from pipeline.commands.compare import compared
from pipeline.comparison import report
from pipeline.comparison.plot import pareto
from pipeline.comparison.rule import front, recommend
from pipeline.comparison.runs import EvaluatedRun, find_runs
from pipeline.comparison.tables import tables
from pipeline.core.composition import compose
from pipeline.core.config import CompareSettings, MarginSettings, load
from pipeline.report.formats import NOTHING, Figure
from pipeline.report.markdown import cell
from pipeline.report.rows import RowResults

REPO = Path(__file__).parents[3]
TRACKING = load(compose(REPO / "conf")).tracking
SMALL = evaluation(
    "starter-s",
    {
        "Q8_0": {"accuracy": 0.81, "loss": 0.2, "bytes": 2_300_000, "answer_seconds": 0.02},
        "Q4_K_M": {"accuracy": 0.80, "loss": 0.21, "bytes": 1_400_000, "answer_seconds": 0.025},
    },
    accuracy=0.8125,
    settings=settings_of(lr=1e-3),
)
LARGE = evaluation(
    "starter-m",
    {
        "F16": {"accuracy": 0.95, "loss": 0.08358, "bytes": 12_100_000, "answer_seconds": 0.09},
        "Q8_0": {"accuracy": 0.95, "loss": 0.08367, "bytes": 6_500_000, "answer_seconds": 0.06},
        "base-Q8_0": {"of": "base", "accuracy": 0.99, "answer_seconds": 0.001},
    },
)


def settings(
    quality: str = "accuracy", seconds: float | None = None, mb: float | None = None, memory: float | None = None
) -> CompareSettings:
    margin = MarginSettings(loss=0.01, accuracy=0.02)
    limits = {"max_answer_seconds": seconds, "max_gguf_mb": mb, "max_memory_mb": memory}
    return CompareSettings(quality=quality, **limits, level=0.005, margin=margin)


def runs(*evaluations: dict[str, Any]) -> list[EvaluatedRun]:
    return [
        EvaluatedRun(one["model"], one["model"], record(one), RowResults.parse(rows_of(one), "")) for one in evaluations
    ]


FILES = [file for run in runs(SMALL, LARGE) for file in run.files]


@pytest.mark.parametrize(
    ("rule", "recommended"),
    [
        (settings(), "starter-m Q8_0"),  # as right as F16, and faster
        (settings("loss"), "starter-m Q8_0"),  # 0.0001 nats are within the margin
        (settings(seconds=0.06), "starter-m Q8_0"),  # at most includes the bound
        (settings(seconds=0.03), "starter-s Q8_0"),
        (settings(mb=2), "starter-s Q4_K_M"),
        (settings(seconds=0.022, mb=2), None),
    ],
)
def test_the_fastest_within_the_budgets_is_recommended_that_none_is_better_than(
    rule: CompareSettings, recommended: str | None
) -> None:
    choice = recommend(FILES, rule)
    assert (str(choice.file) if choice.file else None) == recommended


def test_the_reason_names_the_others_that_none_is_better_than() -> None:
    assert recommend(FILES, settings()).reason == (
        "starter-m Q8_0: accuracy 95.00%, the fastest of 2 that none of the 4 files is better than beyond doubt "
        "(the others: starter-m F16, accuracy 95.00%); 0.06 s an answer, 6.5 MB."
    )
    assert recommend(FILES, settings(seconds=0.03)).reason == (
        "starter-s Q8_0: accuracy 81.00%, the only one of 2 files within the budgets (4 in all) that none is better "
        "than beyond doubt; 0.02 s an answer, 2.3 MB."
    )
    assert "the only file within the budgets (4 in all);" in recommend(FILES, settings(mb=2)).reason


@pytest.mark.parametrize(
    ("large", "recommended"),
    [
        ({"accuracy": 0.83, "loss": 0.2}, "starter-s Q8_0"),  # two more of a hundred, which may be luck
        ({"accuracy": 0.81, "loss": 0.195}, "starter-s Q8_0"),  # better beyond doubt, within the margin
        ({"accuracy": 0.81, "loss": 0.15}, "starter-m F16"),
        ({"accuracy": 0.91, "loss": 0.2}, "starter-m F16"),
        ({"accuracy": 0.5, "loss": 0.1}, "starter-s Q8_0"),  # better in one, worse in the other
    ],
)
def test_a_slower_file_is_recommended_only_if_it_is_better_beyond_doubt(
    large: dict[str, float], recommended: str
) -> None:
    small = evaluation("starter-s", {"Q8_0": {"accuracy": 0.81, "loss": 0.2, "answer_seconds": 0.02}}, questions=300)
    other = evaluation("starter-m", {"F16": large | {"answer_seconds": 0.09}}, questions=300)
    files = [file for run in runs(small, other) for file in run.files]
    assert str(recommend(files, settings()).file) == recommended


def test_files_whose_rows_were_not_kept_are_told_from_no_others() -> None:
    without = [EvaluatedRun(run.name, run.reference, run.evaluation) for run in runs(SMALL, LARGE)]
    comparison = compared(without, settings())
    assert comparison["recommended"] == "starter-s Q8_0"  # the fastest
    assert "Of starter-s, starter-m there is no rows.json: its files are told from no others." in comparison["notes"][0]
    assert {pair["finding"] for pair in comparison["pairs"]} == {"cannot tell"}


def test_the_front_says_which_of_it_cannot_be_told_apart() -> None:
    comparison = compared(runs(SMALL, LARGE), settings("loss"))
    alike = {f"{file['run']} {file['type']}": file["alike"] for file in comparison["files"] if file["front"]}
    assert alike == {
        "starter-s Q8_0": [],
        "starter-m F16": ["starter-m Q8_0"],
        "starter-m Q8_0": ["starter-m F16"],
    }


def test_files_off_the_front_say_too_which_of_it_they_cannot_be_told_from() -> None:
    comparison = compared(runs(SMALL, LARGE), settings())
    shown = {row[0]: row[-2] for row in tables(comparison)[1].rows}
    assert shown == {
        "starter-s Q8_0": "yes",
        "starter-s Q4_K_M": "",
        "starter-m F16": "not told from starter-m Q8_0",
        "starter-m Q8_0": "yes",
    }
    plot = pareto(comparison)
    assert plot.count("stroke-dasharray: 1.8") == 1 + 1  # in the legend, and the pair
    assert ">cannot be told apart</text>" in plot
    assert "cannot be told apart" not in pareto(compared(runs(SMALL), settings(mb=2)))


def test_a_quantization_that_flips_answers_is_named_in_the_table_and_in_the_verdict() -> None:
    flipping = {"flips": 0.4, "flips_lost": 115, "flips_won": 114, "task_flips": {"arc": 0.3}}
    files: dict[str, dict[str, Any]] = {"F16": {}, "Q4_K_M": flipping, "base-Q8_0": {"of": "base"}}
    for figures in files.values():
        figures["tasks"] = {"arc": 0.5}
    (run,) = runs(evaluation("starter-m", files, failed="flips Q4_K_M"))
    comparison = compared([run], settings())
    of_runs, of_files = tables(comparison)[:2]
    shown = {row[0]: dict(zip(of_files.head, map(str, row), strict=True)) for row in of_files.rows}
    assert [shown["starter-m Q4_K_M"][head] for head in ("flips", "lost", "won", "arc", "flips, arc")] == [
        *("40.0%", "115", "114"),
        *("0.5000", "30.0%"),
    ]
    assert shown["starter-m F16"]["flips"] == NOTHING
    assert dict(row[:2] for row in of_runs.rows)["evaluation"] == "fail (flips Q4_K_M)"
    assert comparison["notes"] == [
        "The evaluation of starter-m says fail (flips Q4_K_M); `tunesmith promote` refuses it."
    ]


def test_memory_is_a_budget_and_a_file_without_it_is_within_none() -> None:
    files = {
        "F16": {"answer_seconds": 0.01, "memory_bytes": 90_000_000},
        "Q8_0": {"answer_seconds": 0.02, "memory_bytes": 70_000_000},
        "Q4_K_M": {"answer_seconds": 0.005},  # another version's, which measured none
    }
    comparison = compared(runs(evaluation("starter-m", files)), settings(memory=80))
    assert comparison["recommended"] == "starter-m Q8_0"
    assert comparison["reason"].endswith("; 0.02 s an answer, 1.0 MB, 70.0 MB of memory.")
    assert [file["excluded"] for file in comparison["files"]] == [
        ["90.0 MB of memory, above 80 MB"],
        [],
        ["memory not measured, above 80 MB"],
    ]
    assert report.rule(comparison).startswith("The rule: of files within 80 MB of memory, the fastest")


def test_each_file_is_held_against_the_recommended_one_with_figures() -> None:
    pairs = {pair["file"]: pair for pair in compared(runs(SMALL, LARGE), settings())["pairs"]}
    assert {name: pair["finding"] for name, pair in pairs.items()} == {
        "starter-s Q8_0": "worse",
        "starter-s Q4_K_M": "worse",
        "starter-m F16": "no worse",
    }
    loss, accuracy = pairs["starter-s Q8_0"]["figures"]
    assert (loss["figure"], loss["finding"], loss["rows"]) == ("loss", "worse", 300)
    assert loss["low"] < loss["difference"] < loss["high"] < 0
    assert (accuracy["figure"], accuracy["rows"]) == ("accuracy", 573)
    assert accuracy["difference"] == pytest.approx(-0.14, abs=0.005)


def test_where_nothing_fits_the_nearest_is_named_with_what_it_is_above() -> None:
    choice = recommend(FILES, settings(seconds=0.022, mb=2))
    assert str(choice.nearest) == "starter-s Q4_K_M"
    assert choice.reason.endswith("Nearest is starter-s Q4_K_M: 0.025 s an answer, above 0.022 s.")


def test_the_front_has_what_no_other_file_beats() -> None:
    assert [str(file) for file in front(FILES, "accuracy")] == ["starter-s Q8_0", "starter-m Q8_0"]
    assert [str(file) for file in front(FILES, "loss")] == ["starter-s Q8_0", "starter-m Q8_0", "starter-m F16"]


def test_files_above_a_budget_say_which_and_base_files_are_left_out() -> None:
    comparison = compared(runs(SMALL, LARGE), settings(seconds=0.07, mb=2))
    assert {f"{file['run']} {file['type']}": file["excluded"] for file in comparison["files"]} == {
        "starter-s Q8_0": ["2.3 MB, above 2 MB"],
        "starter-s Q4_K_M": [],
        "starter-m F16": ["0.09 s an answer, above 0.07 s", "12.1 MB, above 2 MB"],
        "starter-m Q8_0": ["6.5 MB, above 2 MB"],
    }


def test_by_preferences_the_pairs_decide_and_are_counted_where_they_are_shown(tmp_path: Path) -> None:
    files = {"Q8_0": {"preference_accuracy": 0.5, "answer_seconds": 0.02}}, {"Q8_0": {"preference_accuracy": 0.7}}
    small, large = (evaluation(f"starter-{name}", one, pairs=200) for name, one in zip("sm", files, strict=True))
    comparison = compared(runs(small, large), settings("preference"))
    assert (comparison["rule"]["quality"], comparison["recommended"]) == ("preference", "starter-m Q8_0")
    assert comparison["reason"].startswith("starter-m Q8_0: preference 70.00%, the only one of 2 files that none is")
    (pair,) = comparison["pairs"]
    assert [one["finding"] for one in pair["figures"]] == ["no worse", "no worse", "worse"]
    assert (pair["figures"][2]["won"], pair["figures"][2]["lost"], pair["figures"][2]["of"]) == (0, 40, "pair")
    report.write(tmp_path, comparison)
    for name in ("compare.md", "compare.html"):
        assert "200 pairs (0 won, 40 lost)" in (tmp_path / name).read_text()
    assert report.rule(comparison).endswith("by held-out pairs of answers, in all else no worse, on the same rows.")
    mixed = compared(runs(small, LARGE), settings("preference"))
    assert mixed["rule"]["quality"] == "accuracy"
    assert "Ranked by accuracy: not every run has pairs of answers that are held out." in mixed["notes"]


def test_without_questions_in_every_run_loss_decides_and_it_is_said() -> None:
    unasked = evaluation("starter-s", {"Q8_0": {"loss": 0.05}}, accuracy=None)
    comparison = compared(runs(unasked, LARGE), settings())
    assert comparison["recommended"] == "starter-s Q8_0"
    assert comparison["rule"]["quality"] == "loss"
    assert "Ranked by loss: not every run has questions with known answers." in comparison["notes"]


@pytest.mark.parametrize(
    ("other", "note"),
    [
        ({"test": "8" * 64}, "different test rows"),
        ({"rows": 200}, "different test rows"),
        ({"tokens": 54321}, "different tokens"),
        ({"prompts": ["What is 5 + 6?", "Who?"]}, "different prompts"),
        (
            {"failed": "quantization Q4_K_M"},
            r"The evaluation of starter-m says fail \(quantization Q4_K_M\); `tunesmith promote` refuses it\.",
        ),
        (
            {"missing": 44},
            r"starter-m says too few to tell: 44 more test conversations; `tunesmith promote` refuses it\.",
        ),
    ],
)
def test_what_makes_figures_incomparable_is_said(other: dict[str, Any], note: str) -> None:
    assert compared(runs(SMALL, LARGE), settings())["notes"] == []
    changed = evaluation("starter-m", {"Q8_0": {"accuracy": 0.95}}, **other)
    (said,) = compared(runs(SMALL, changed), settings())["notes"]
    assert re.search(note, said)


def test_runs_show_the_settings_in_which_they_differ_and_answers_to_the_same_prompts() -> None:
    comparison = compared(runs(SMALL, LARGE), settings())
    assert [run["settings"] for run in comparison["runs"]] == [{"train.lr": 1e-3}, {"train.lr": 5e-3}]
    assert [asked["prompt"] for asked in comparison["answers"]] == SMALL["prompts"]
    assert [one["file"] for one in comparison["answers"][0]["answers"]] == ["starter-s Q8_0", "starter-m Q8_0"]


def test_each_runs_verdict_and_what_is_unsure_of_its_gain_stand_in_the_table() -> None:
    one = {"gain": {"loss": 1.6, "low": None, "high": None}}
    few = evaluation("starter-m", {"Q8_0": {}}, missing=49, **one)
    rows = {row[0]: [str(part) for part in row[1:]] for row in tables(compared(runs(SMALL, few), settings()))[0].rows}
    assert rows["evaluation"] == ["pass", "too few to tell: 49 more test conversations"]
    assert rows["gain over its base, nats a token"] == ["1.6000 (1.5000 to 1.7000)", "1.6000 (interval unknown)"]


def test_what_is_no_number_is_never_recommended_and_stops_nothing(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("loss", "perplexity", "answer_seconds", "first_token_seconds", "tokens_per_second"))
    broken = evaluation("starter-x", {"Q8_0": {**nothing, "accuracy": 0.0}}, failed="finite")
    for rule in (settings(), settings("loss"), settings(seconds=1)):
        comparison = compared(runs(broken, SMALL), rule)
        assert comparison["recommended"] == "starter-s Q8_0"
        report.write(tmp_path, comparison)
    assert comparison["files"][0]["excluded"] == ["answers not timed, above 1 s"]
    alone = compared(runs(broken), settings("loss"))
    assert alone["reason"].startswith("starter-x Q8_0: no finite loss, the only file; answers not timed")
    assert alone["notes"] == ["The evaluation of starter-x says fail (finite); `tunesmith promote` refuses it."]
    report.write(tmp_path, alone)


def test_runs_without_a_tuned_file_are_refused() -> None:
    with pytest.raises(UserError, match="none of the runs has a tuned GGUF file"):
        compared(runs(evaluation("starter-s", {"base-Q8_0": {"of": "base"}})), settings())


def shown_figures(comparison: dict[str, Any]) -> list[Figure]:
    figures = [part for table in tables(comparison) for row in table.rows for part in row if isinstance(part, Figure)]
    return [one for figure in figures for one in (figure, *(figure.interval or ()))]


def test_every_figure_of_the_tables_is_one_of_the_json(tmp_path: Path) -> None:
    report.write(tmp_path, compared(runs(SMALL, LARGE), settings()))
    comparison = json.loads((tmp_path / "compare.json").read_text())
    figures = [figure for figure in shown_figures(comparison) if figure.value is not None]
    assert len(figures) > 50
    for figure in figures:
        found: Any = comparison
        for part in figure.name.split("."):
            found = found[int(part)] if isinstance(found, list) else found[part]
        assert found == figure.value, figure.name


def test_markdown_page_and_terminal_show_the_same_cells(tmp_path: Path) -> None:
    comparison = compared(runs(SMALL, LARGE), settings(seconds=0.06))
    report.write(tmp_path, comparison)
    markdown, page = ((tmp_path / name).read_text() for name in ("compare.md", "compare.html"))
    rows = [row for table in tables(comparison) for row in table.rows]
    assert len(rows) > 20
    for row in rows:
        assert "| " + " | ".join(map(cell, row)) + " |" in markdown
    shown = dict(re.findall(r'<span data-figure="([^"]+)">([^<]*)</span>', page))
    for figure in shown_figures(comparison):
        assert shown[figure.name] == figure.text
    texts = {html.unescape(text) for text in re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", page)}
    assert {part for row in rows for part in row if isinstance(part, str)} <= texts
    console = Console(width=300, file=StringIO(), record=True)
    report.show(console, comparison)
    printed = console.export_text()
    runs_table, files_table = tables(comparison)[:2]
    shown = {"file", "MB", "memory, MB", "accuracy", "flips", "answer, s", "rule"}
    for row in runs_table.rows + [
        [part for name, part in zip(files_table.head, row, strict=True) if name in shown] for row in files_table.rows
    ]:
        for part in row:
            assert str(part) in printed
    for text in (markdown, page, printed):
        assert "0.06 s an answer" in text


def test_the_page_needs_nothing_else_and_runs_nobodys_words(tmp_path: Path) -> None:
    report.write(tmp_path, compared(runs(SMALL, LARGE), settings()))
    page = (tmp_path / "compare.html").read_text()
    assert "<b>programming" not in page
    assert "&lt;b&gt;programming" in page
    assert not re.search(r"<(script|link|img|iframe)\b", page)
    assert (tmp_path / "compare.svg").read_text()[-7:-1] == "</svg>"


def test_the_plot_has_each_file_the_front_and_the_budget() -> None:
    plot = pareto(compared(runs(SMALL, LARGE), settings(seconds=0.03)))
    for text in ("Q8_0", "Q4_K_M", "F16", "starter-s", "starter-m", "Pareto front", "at most 0.03 s", "recommended"):
        assert f">{text}</text>" in plot
    assert plot == pareto(compared(runs(SMALL, LARGE), settings(seconds=0.03)))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with conf/ and a new MLflow database of its own."""
    (tmp_path / "conf").symlink_to(REPO / "conf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_tracking_uri(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    yield tmp_path
    mlflow.set_tracking_uri(None)


def log(evaluated: dict[str, Any] | None, name: str, fingerprint: str, experiment: str = "tunesmith") -> str:
    """A run in MLflow as a training and its evaluation leave it; None leaves out the evaluation's file."""
    client = mlflow.MlflowClient()
    known = client.get_experiment_by_name(experiment)
    place = known.experiment_id if known else client.create_experiment(experiment)
    run_id: str = client.create_run(place, run_name=name, tags={"fingerprint": fingerprint}).info.run_id
    client.log_metric(run_id, "passed", 1)
    if evaluated:
        client.log_dict(run_id, evaluated, "evaluation.json")
        if evaluated.keys() == LARGE.keys():
            client.log_dict(run_id, rows_of(evaluated), "rows.json")
    return run_id


def test_runs_of_mlflow_are_found_by_id_by_name_and_the_newest_of_each_fingerprint(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log(SMALL, "small", "aa")
    old = log(LARGE, "large", "bb")
    new = log(LARGE, "large", "bb")
    gone = log(None, "gone", "cc")
    log(LARGE, "other", "dd", experiment="another")
    assert [run.reference for run in find_runs(TRACKING, [])][1:] == [new]
    assert f"left out: run {gone} (gone) has no evaluation.json" in capsys.readouterr().err
    assert [run.evaluation.model for run in find_runs(TRACKING, ["small", "large"])] == ["starter-s", "starter-m"]
    named = find_runs(TRACKING, [old, "large"])
    assert [run.reference for run in named] == [old, new]
    assert [run.name for run in named] == [f"starter-m {old[:8]}", f"starter-m {new[:8]}"]
    with pytest.raises(UserError, match=rf"^run {gone} \(gone\) has no evaluation.json; make it again"):
        find_runs(TRACKING, ["gone"])


def test_a_run_whose_record_cannot_be_read_is_left_out_and_said(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = ["schema_version", "prepared", "training", "gain", "mlflow_run", "prompts", "verdict"]
    small = log(SMALL, "small", "small")
    old = {name: log({key: LARGE[key] for key in LARGE if key != name}, name, name) for name in lost}
    new = log(LARGE, "new", "new")
    capsys.readouterr()  # MLflow tells of its new database
    lines = [
        f"evaluation.json of run {old[name]} ({name}) "
        + (
            f"does not hold what it should: {name}: field required"
            if name != lost[0]
            else "was made by another version"
        )
        for name in lost
    ]
    for names, left in (([], [small, new]), ([*lost, "small"], [small])):
        assert [run.reference for run in find_runs(TRACKING, names)] == left
        said = capsys.readouterr().err.splitlines()
        assert len(said) == len(lines)
        for line, start in zip(said, lines, strict=True):
            assert line.startswith(f"left out: {start}")
    with pytest.raises(UserError, match=f"^{re.escape(lines[1])}"):
        find_runs(TRACKING, [lost[1]])
    contradicts = log(LARGE | {"answers": {}}, "contradicts", "contradicts")
    assert [run.reference for run in find_runs(TRACKING, ["contradicts", "small"])] == [small]
    start = f"left out: evaluation.json of run {contradicts} (contradicts) does not hold what it should: answers: "
    assert capsys.readouterr().err.startswith(start)
    with pytest.raises(UserError, match=f"^{re.escape(lines[1])}.*; nor can 1 other run be read$"):
        find_runs(TRACKING, lost[1:3])
    assert capsys.readouterr().err == ""  # the errors say it


def test_an_experiment_of_dvc_and_the_workspace_are_compared(place: Path) -> None:
    identity = {f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **identity, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(*commands: str) -> None:
        for command in commands:
            subprocess.run(command.split(), env=environment, check=True, capture_output=True)

    (place / "reports").mkdir()
    (place / "measured.json").write_text(json.dumps(LARGE))
    (place / "dvc.yaml").write_text(
        "stages: {evaluate: {cmd: cp measured.json reports/evaluation.json, deps: [measured.json], "
        "outs: [reports/evaluation.json]}}"
    )
    run("git init -q -b main", "dvc init -q", "dvc repro -q", "git add -A", "git commit -qm large")
    (place / "measured.json").write_text(json.dumps(SMALL))
    run("dvc exp run -q -n small", "git checkout -q -- .", "dvc checkout -q -f")
    found = find_runs(TRACKING, ["small", "HEAD", "workspace"])
    assert [run.evaluation for run in found] == [record(one) for one in (SMALL, LARGE, LARGE)]
    assert [run.name for run in found] == ["starter-s", "starter-m HEAD", "starter-m workspace"]
    with pytest.raises(UserError, match=r"no run missing: MLflow .*; no DVC experiment or git revision either"):
        find_runs(TRACKING, ["missing"])


def test_the_command_writes_all_and_ends_well_also_where_nothing_fits(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log(SMALL, "small", "aa")
    log(LARGE, "large", "bb")
    for seconds, said in (("1", "Recommended: starter-m Q8_0"), ("0.03", "Recommended: starter-s Q8_0")):
        assert cli.run(["compare", f"compare.max_answer_seconds={seconds}"]) == 0
        assert said in capsys.readouterr().out
    assert cli.run(["compare", "small", "compare.max_gguf_mb=1"]) == 0
    assert "Nothing to recommend: No file is within the budgets." in capsys.readouterr().out
    written = {path.name for path in (place / "reports").iterdir()}
    assert written == {"compare.json", "compare.md", "compare.html", "compare.svg"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], r"compare: MLflow has no \S+/mlflow.db yet; run `tunesmith repro` first, or set tracking.uri"),
        (["workspace"], "compare: reports/evaluation.json is missing; run `dvc repro report` first"),
        (["compare.max_gguf_mb=0"], "compare: compare.max_gguf_mb is 0.0; it may be above 0"),
    ],
)
def test_what_cannot_be_compared_ends_in_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    assert cli.run(["compare", *arguments]) == 1
    assert re.match(line, capsys.readouterr().err.splitlines()[-1])


def test_a_server_that_is_away_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"MLflow fails \(API request to http://127.0.0.1:9.*; see to it"):
        find_runs(TRACKING, [])
