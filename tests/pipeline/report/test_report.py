"""The page, the Markdown, the JSON and MLflow show the same figures; what is missing, or means harm, does none."""

import csv
import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from evaluation_sample import ask, models, sample
from mlflow import MlflowClient
from records import record

from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.report.charts import binned
from pipeline.report.differences import differences
from pipeline.report.files import write
from pipeline.report.formats import NOTHING
from pipeline.report.markdown import markdown
from pipeline.report.numbers import numbers
from pipeline.report.page import page
from pipeline.report.tables import tables
from pipeline.tracking.run import tracked, tracking_uri

REPO = Path(__file__).parents[3]
EVIL = "<script>document.title = 'taken'</script><img src=x onerror=alert(1)> &lt; | `a` *b* [c](d) ![e](f)\\"
Rows = list[list[str]]
# What the page shows no figure of: it is said in words, drawn, or repeats another.
LEFT_OUT = r"prepared\.(seed|questions\.groups\..*|files\.\d+\.dropped\..*)"


class Page(HTMLParser):
    """What a reader of the page finds: tables as rows of texts, figures by name, answers, and every tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, Rows] = {}
        self.figures: list[tuple[str, str]] = []
        self.replies: dict[str, list[str]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._table = self._answer = ""
        self._into: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.tags.append((tag, given))
        if tag == "table":
            self._table = str(given["data-table"])
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("th", "td") and given.get("class") != "change":
            self._into = self.tables[self._table][-1]
            self._into.append("")
        elif "data-answer" in given:
            self._answer = str(given["data-answer"])
        elif given.get("class") == "reply":
            self._into = self.replies.setdefault(self._answer, [])
            self._into.append("")
        if "data-figure" in given:
            self.figures.append((str(given["data-figure"]), ""))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td", "div"):
            self._into = None

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._into is not None:
            self._into[-1] += data
        if self.figures and self.figures[-1][1] == "":
            self.figures[-1] = (self.figures[-1][0], data)


def cells(line: str) -> list[str]:
    """A Markdown row's cells, as a reader of Markdown sees them."""
    parts = re.findall(r"(?:\\.|[^|\\])+", line.strip().strip("|").replace("||", "| |"))
    texts = (html.unescape(re.sub(r"\\(.)", r"\1", part)).strip() for part in parts)
    return [text.replace("<br>", "\n") for text in texts]


def markdown_tables(text: str) -> dict[str, Rows]:
    """The rows of each table, by its heading."""
    sections = (section.split("\n", 1) for section in text.split("\n## ")[1:])
    lines = {title: [line for line in body.splitlines() if line.startswith("|")] for title, body in sections}
    return {title: [cells(line) for line in (rows[0], *rows[2:])] for title, rows in lines.items()}


def leaves(tree: Any, name: str = "") -> dict[str, float | None]:
    """Every number, and every null, by its dotted name."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {key: leaf for part, value in items for key, leaf in leaves(value, f"{name}.{part}").items()}
    return {name.removeprefix("."): tree} if tree is None or type(tree) in (int, float) else {}


def figures_of(evaluation: dict[str, Any]) -> dict[str, float | None]:
    """The figures that a report must show, by the names that they have there."""
    shown = {"base": evaluation["base_model"], "tuned": evaluation["tuned_model"]}
    kept = ("gain", "gguf", "answers", "verdict", "training", "prepared", "judgement")
    return leaves(shown | {name: evaluation[name] for name in kept})


def agrees(text: str, value: float) -> bool:
    """Whether a text shows a number: it is off by half of its own last digit at most."""
    number = text.rstrip("%").replace(",", "")
    digits, _, exponent = number.partition("e")
    last = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
    scale = 0.01 if text.endswith("%") else 1
    return abs(float(number) - value / scale) <= 0.5001 * last


def spaced(text: str) -> str:
    return " ".join(text.split())


def without_texts(evaluation: dict[str, Any]) -> None:
    for model in models(evaluation):
        del model["texts"]


def test_page_and_markdown_show_the_same_tables() -> None:
    evaluation = sample()
    shown, written = Page(page(record(evaluation))), markdown_tables(markdown(record(evaluation)))
    titles = {table.title: name for name, table in tables(record(evaluation)).items()}
    assert list(titles) == list(written)
    assert set(titles.values()) - set(shown.tables) == {"checks", "answers", "harness"} & set(titles.values())
    for title, rows in written.items():
        if titles[title] in shown.tables:
            found = [[spaced(cell) for cell in row] for row in shown.tables[titles[title]]]
            assert found == [[spaced(cell) for cell in row] for row in rows], title


def test_every_figure_of_the_page_is_the_one_in_the_json() -> None:
    evaluation = sample()
    known, shown = figures_of(evaluation), Page(page(record(evaluation))).figures
    assert len(shown) > 300
    for name, text in shown:
        value = known.get(name)
        if value is None:
            assert text in (NOTHING, evaluation["training"].get(name.partition(".")[2])), name
        else:
            assert agrees(text, value / 1e6 if name.endswith("bytes") else value), (name, text, value)


@pytest.mark.parametrize(
    "row",
    [
        "| loss, nats a token | 1.7901 (1.6648 to 1.9333) | 0.0836 (0.0777 to 0.0902) |",
        "| samples/s | 77.76 | 96.70 |",
        "| gain in loss, nats a token |  | 1.7065 (1.6312 to 1.7815) |",
        "| peak reserved memory, of the card | 6.087% |",
        "| held out / fibonacci | 0.0% | 81.8% | 81.8% | 81.8% | 81.8% | 0.0% |",
        "| base-Q8\\_0 | 11.7 | 0.043 | 0.061 | 0.0% | 0.0% | 98.5% |",
        "| won by tuned, a tie as half | 87.5% (30.2% to 100.0%) |",
        "| the judge says what they voted | 77.5% (65.0% to 90.0%) |",
        "| mean | 0.0387 | 0.0501 | 0.0461 | 0.0378 | 0.0590 | 0.0304 |",
        "| starter/chats.jsonl | messages | 6,100 | 6,044 | 12 empty message, 44 no assistant turn |",
    ],
)
def test_figures_stand_under_their_heads(row: str) -> None:
    assert f"\n{row}\n" in markdown(record(sample()))


def test_what_a_judge_found_of_a_prompt_stands_with_its_answers() -> None:
    evaluation = sample()
    evaluation["judgement"]["outcomes"] = ["tuned", "base", "tie"]  # of the fourth it was not asked
    said = [text for text in Page(page(record(evaluation))).texts if text.startswith("The judge finds")]
    assert said == [f"The judge finds {who} better." for who in ("tuned", "base", "neither")]
    del evaluation["judgement"]
    assert "judge" not in page(record(evaluation))


def test_a_figure_that_is_off_by_a_digit_is_seen() -> None:
    assert agrees("0.0836", 0.08356)
    assert agrees("95.2%", 0.9523)
    assert agrees("4.1e-06", 4.1e-6)
    assert not agrees("0.0837", 0.08356)
    assert not agrees("95.3%", 0.9523)
    assert not agrees("4.2e-06", 4.1e-6)


def test_no_figure_is_left_out() -> None:
    evaluation = sample()
    for model in (evaluation["base_model"], evaluation["tuned_model"]):
        model["tasks"] = {"arc_easy": 0.3125}
    evaluation["gguf"]["Q4_K_M"] |= {"tasks": {"arc_easy": 0.3}, "task_flips": {"arc_easy": 0.0625}}
    shown = {name for name, _ in Page(page(record(evaluation))).figures}
    expected = {name for name, value in figures_of(evaluation).items() if value is not None}
    assert {name for name in expected - shown if not re.fullmatch(LEFT_OUT, name)} == set()


def test_the_table_of_files_has_what_each_is_worth_changes_and_takes() -> None:
    evaluation = sample()
    evaluation["gguf"]["Q4_K_M"] |= {"tasks": {"arc_easy": 0.3}, "task_flips": {"arc_easy": 0.0625}}
    evaluation["gguf"]["base-Q8_0"] |= {"tasks": {"arc_easy": 0.25}}
    head, *rows = Page(page(record(evaluation))).tables["gguf"]
    shown = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    wanted = {
        "MB": "3.8",
        "memory, MB": "15.1",
        "KL, nats": "0.0038",
        "accuracy": "95.2% (93.2% to 96.9%)",
        "flips": "2.3%",
        "lost": "9",
        "won": "4",
        "tokens/s": "211.7",
        "prompt tokens/s": "812.4",
        "arc_easy": "0.3000",
        "flips, arc_easy": "6.2%",
    }
    assert wanted.items() <= shown["Q4_K_M"].items()
    assert [shown[name]["flips"] for name in ("F16", "Q8_0", "base-Q8_0")] == [NOTHING, "0.0%", NOTHING]
    assert [shown[name]["arc_easy"] for name in ("F16", "base-Q8_0")] == [NOTHING, "0.2500"]


def test_markdown_has_the_checks_and_the_answers_of_the_page() -> None:
    evaluation = sample()
    shown, written = Page(page(record(evaluation))), markdown_tables(markdown(record(evaluation)))
    figures = dict(shown.figures)
    for index, row in enumerate(written["Checks"][1:]):
        check = evaluation["verdict"]["checks"][index]
        place = f"verdict.checks.{index}"
        known = [figures[f"{place}.{key}"] for key in ("figure", "limit")]
        assert row == [check["name"], "passed", check["what"], *known, f"{check.get('rows', '-')}"]
    for row in written["Answers"][1:]:
        index = evaluation["prompts"].index(row[0])
        assert row[2] == shown.replies[row[1]][index]
        keys = ("tokens", "tokens_per_second", "first_token_seconds", "seconds")
        assert row[3:] == [figures.get(f"answers.{row[1]}.{index}.{key}", NOTHING) for key in keys]


def test_mlflow_is_told_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    evaluation = sample()
    config = load(compose(REPO / "conf"))
    with tracked(config, tmp_path / "journal", "starter-m") as run:
        run.metrics(numbers(record(evaluation)))
    assert run.id
    told = MlflowClient(tracking_uri(config.tracking)).get_run(run.id).data.metrics
    shown = [
        (name, text)
        for name, text in Page(page(record(evaluation))).figures
        if name.split(".")[0] in numbers(record(evaluation)) and text != NOTHING
    ]
    assert len(shown) > 100
    for name, text in shown:
        value = told[re.sub(r"[^\w.\- :]", "_", name)]
        assert agrees(text, value / 1e6 if name.endswith("bytes") else value), name


def test_nothing_comes_from_elsewhere_and_nothing_runs() -> None:
    evaluation = sample()
    evaluation["prompts"][0] = evaluation["model"] = evaluation["answers"]["Q4_K_M"][1]["reply"] = EVIL
    evaluation["verdict"]["checks"][0]["what"] = evaluation["prepared"]["files"][0]["file"] = EVIL
    for model in models(evaluation):
        model["accuracy_by_task"][EVIL] = 0.5
    text = page(record(evaluation))
    shown = Page(text)
    tags = {tag for tag, _ in shown.tags}
    assert tags.isdisjoint({"script", "img", "link", "iframe", "object", "embed", "a", "form", "base"})
    attributes = {name for _, given in shown.tags for name in given}
    assert not any(name.startswith("on") or name in ("src", "href", "style", "action") for name in attributes)
    assert not re.search(r"url\(|@import|https?:", text)
    assert "default-src 'none'" in text
    assert shown.replies["Q4_K_M"][1] == EVIL
    assert shown.tables["files"][1][0] == EVIL


def test_markdown_keeps_a_reply_in_its_cell_and_makes_nothing_of_it() -> None:
    evaluation = sample()
    evaluation["answers"]["tuned"][0]["reply"] = f"{EVIL}\r\n\n# a heading\n"
    text = markdown(record(evaluation))
    rows = markdown_tables(text)["Answers"]
    assert len({len(row) for row in rows}) == 1
    assert rows[2][2] == f"{EVIL}\n\n# a heading"
    assert not re.search(r"<(?!br>)|[^\\]!?\[c\]|\r", text)


@pytest.mark.parametrize(
    "part",
    [
        ask,
        lambda evaluation: ask(evaluation, prompts=4),
        lambda evaluation: ask(evaluation, questions=573),
        without_texts,
        lambda evaluation: (ask(evaluation), without_texts(evaluation)),
        lambda evaluation: evaluation.update(training=None, curve=[]),
        lambda evaluation: evaluation.update(prepared=None, mlflow_run=None),
        lambda evaluation: evaluation["prepared"].update(characters={}, not_read={}),
        lambda evaluation: (ask(evaluation), evaluation.update(gguf={}, answers={"base": [], "tuned": []})),
        lambda evaluation: (ask(evaluation), evaluation["lengths"].update(reference=[3])),
        lambda evaluation: evaluation.update(curve=[{"step": 1, "loss": 2.5, "validation_loss": None}]),
        lambda evaluation: evaluation.update(curve=[{"step": n, "loss": 2.5, "validation_loss": None} for n in (1, 2)]),
    ],
)
def test_what_is_not_there_is_left_out(part: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    evaluation = sample()
    part(evaluation)
    for path in write(record(evaluation), tmp_path / "reports"):
        assert path.stat().st_size > 0
    shown = Page((tmp_path / "reports/evaluation.html").read_text(encoding="utf-8"))
    assert all(len(rows) > 1 for rows in shown.tables.values())
    assert not re.search(r"\b(None|nan|Undefined)\b", " ".join(shown.texts))


def test_without_questions_there_is_no_accuracy() -> None:
    evaluation = sample()
    ask(evaluation, prompts=4)
    del evaluation["verdict"]["checks"][3:]  # of tasks
    assert "accuracy" not in markdown(record(evaluation)).casefold()
    assert "accuracy" not in " ".join(Page(page(record(evaluation))).texts).partition("</style>")[2].casefold()


def test_a_diverged_model_fails_by_name_and_shows_no_figures(tmp_path: Path) -> None:
    evaluation = sample()
    for model in (evaluation["tuned_model"], evaluation["gguf"]["Q8_0"]):
        for key in [key for key in model if key.startswith(("loss", "perplexity", "kl"))]:
            model[key] = None
    evaluation["gain"] = dict.fromkeys(evaluation["gain"])
    evaluation["verdict"]["checks"][0] |= {"passed": False, "figure": None}
    evaluation["verdict"]["passed"] = False
    write(record(evaluation), tmp_path)
    shown = Page((tmp_path / "evaluation.html").read_text(encoding="utf-8"))
    assert "Fail" in shown.texts
    assert dict(shown.figures)["tuned.loss"] == dict(shown.figures)["gain.loss"] == NOTHING
    text = (tmp_path / "evaluation.md").read_text(encoding="utf-8")
    assert "**Verdict: fail (gain)**" in text
    assert f"| Q8\\_0 | 6.5 | 26.0 | {NOTHING} |" in text


def test_too_few_to_tell_is_neither_pass_nor_fail_and_says_how_many_more(tmp_path: Path) -> None:
    evaluation = sample()
    few = {"name": "test conversations", "what": "6 of them; raise data.test", "figure": 6, "limit": 50}
    evaluation["verdict"]["checks"].insert(0, {**few, "passed": None, "missing": 44})
    evaluation["verdict"]["passed"] = False
    write(record(evaluation), tmp_path)
    shown = Page((tmp_path / "evaluation.html").read_text(encoding="utf-8"))
    assert "Too few to tell" in shown.texts
    assert {"Pass", "Fail"}.isdisjoint(shown.texts)
    assert "It takes 44 more test conversations to tell." in spaced(" ".join(shown.texts))
    assert ("section", {"id": "verdict", "class": "untold"}) in shown.tags
    text = (tmp_path / "evaluation.md").read_text(encoding="utf-8")
    assert "**Verdict: too few to tell: 44 more test conversations**" in text
    assert "| test conversations | too few | 6 of them; raise data.test | 6 | 50 |" in text
    evaluation["verdict"]["checks"][1]["passed"] = False
    assert "Fail" in Page(page(record(evaluation))).texts


def test_one_of_each_is_counted_as_one_and_has_no_interval() -> None:
    evaluation = sample()
    ask(evaluation, questions=1, prompts=4)
    evaluation |= {"rows": 1, "tokens": 1}
    for bound in ("low", "high"):
        evaluation["gain"][bound] = None
        evaluation["tuned_model"] |= {f"{name}_{bound}": None for name in ("loss", "perplexity", "accuracy")}
    evaluation["answers"]["tuned"][0] |= {"tokens": 1, "tokens_per_second": None}
    shown, written = Page(page(record(evaluation))), markdown(record(evaluation))
    said = spaced(" ".join(shown.texts))
    assert "both measured on 1 conversation with 1 scored token and 1 question." in said
    assert "; 1 conversation, 1 scored token, 1 question; " in written
    assert "0.0836 (interval unknown)" in shown.tables["models"][1][2]
    assert "| gain in loss, nats a token |  | 1.7065 (interval unknown) |" in written
    assert not re.search(r"\b1 (conversations|tokens|questions|scored tokens)\b|- a second", said + written)


def test_differing_words_are_marked_and_no_letter_is_lost() -> None:
    pieces = differences("The capital of  France\nis Paris.", "The capital of Spain is Madrid.")
    assert pieces == [("The capital of  ", False), ("France", True), ("\n", False), ("is ", False), ("Paris.", True)]
    assert differences("same words", "same   words") == [("same words", False)]
    assert differences("", "something") == []
    assert differences("all of it", "") == [("all of it", True)]
    reply, other = "a b " * 300 + "c", "b a c " * 200
    assert "".join(text for text, _ in differences(reply, other)) == reply


def test_lengths_fall_into_bins_of_whole_tokens() -> None:
    edges, shares = binned({"reference": [0, 1, 63, 64], "base": [5], "tuned": []})
    assert edges[:3] == [0, 3, 6]
    assert shares["reference"][0] == 0.5
    assert shares["base"][1] == 1.0
    assert "tuned" not in shares
    assert all(sum(values) == 1 and len(values) == len(edges) - 1 for values in shares.values())


def test_the_series_hold_the_figures(tmp_path: Path) -> None:
    evaluation = sample()
    write(record(evaluation), tmp_path)
    with (tmp_path / "gguf.csv").open(encoding="utf-8", newline="") as file:
        rows = {row.pop("type"): row for row in csv.DictReader(file)}
    for name, gguf in evaluation["gguf"].items():
        assert rows[name] == {key: str(gguf.get(key, "")) for key in rows[name]}
        assert {"accuracy", "memory_bytes", "flips", "flips_lost"} <= rows[name].keys()
    with (tmp_path / "lengths.csv").open(encoding="utf-8", newline="") as file:
        lengths = list(csv.DictReader(file))
    for name in ("reference", "base", "tuned"):
        assert sum(float(row[name]) for row in lengths) == pytest.approx(1)


def test_dvc_plots_draws_the_series(tmp_path: Path) -> None:
    write(record(sample()), tmp_path / "reports")
    (tmp_path / "reports/loss.csv").write_text("step,split,loss\n1,train,2.5\n2,train,1.5\n2,validation,1.75\n")
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    shutil.copytree(REPO / ".dvc/plots", tmp_path / ".dvc/plots")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(REPO / name, tmp_path)
    shown = subprocess.run([*dvc, "plots", "show", "--json"], cwd=tmp_path, check=True, capture_output=True, text=True)
    drawn = json.loads(shown.stdout)
    assert "errors" not in drawn
    points = {
        name: plots[0]["content"]["data"]["values"] for name, plots in drawn["data"].items() if "content" in plots[0]
    }
    assert {point["field"] for point in points["length of answers"]} == {"reference", "base", "tuned"}
    seconds = {point["type"]: float(point["answer_seconds"]) for point in points["seconds an answer"]}
    assert seconds == {name: gguf["answer_seconds"] for name, gguf in sample()["gguf"].items()}
    assert set(points) >= {"reports/gguf.csv", "reports/loss.csv"}


@pytest.mark.parametrize("questions", [True, False])
def test_the_picture_is_a_png(tmp_path: Path, questions: bool) -> None:
    evaluation = sample()
    if not questions:
        ask(evaluation, prompts=4)
    write(record(evaluation), tmp_path)
    assert (tmp_path / "evaluation.png").read_bytes().startswith(b"\x89PNG\r\n")
