"""The page in a real browser, as a visitor sees it: on a desk unless a test says phone."""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from mlflow import MlflowClient
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from servers import ROOT, free_port, started_server, wait_until
from tiny_gguf import ACCENTS, FAREWELL, write_scripted

from common.files import sha256
from pipeline import cli
from pipeline.canary.record import CanaryRecord
from pipeline.core.composition import CONF, compose
from pipeline.core.config import load
from pipeline.tracking.registry import mlflow_client, register, set_champion
from serve.feedback import CONSENT, AnswerRecord, ComparisonRecord, Record, read_records, visitor_of

CHROMIUM = Path("/usr/bin/chromium")
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 800}
LIMITS: dict[str, Any] = {
    "model": "nested/accents",
    "context": 1 << 18,
    "max_tokens": 1 << 17,
    "rate": 0,
}
KEPT = "Thank you, kept."
AGREED = {"id": "0123456789abcdef" * 2, "consent": CONSENT.version}
# What one of the models says, in tokens that all differ.
RICH = [
    "<think>\nIs it $a$", " or b?\n</think>\n\n", "Inline \\(x^2\\) and $y_1$", ", for $5 or $10.",
    " If a<b and c>d, stop:", " `e<f and $g$`.\n\n", "\\[z^3\\]\n\n", "- [ ] open\n", "- [x] done\n\n",
    "```python\n<b>x</b>\n```\n\n", "\u05e9\u05dc\u05d5\u05dd \\(w\\)\n\n", "- \u05d0\u05d7\u05d3\n\n",
    "| \u05e9\u05dd | \u05e2\u05e8\u05da |\n|---|---|\n", "| \u05d0 | 1 |\n\n", "\u4f60\u597d",
]  # fmt: skip
# The lowest contrast of any text on the page with what lies behind it, as WCAG 2 counts it, and that text.
CONTRAST = """() => {
    const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
    const luminance = (rgb) => {
        const [r, g, b] = rgb.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (; element; element = element.parentElement) {
            const [r, g, b, a = 1] = rgba(getComputedStyle(element).backgroundColor);
            if (a > 0.5) return [r, g, b];
        }
        return [255, 255, 255];
    };
    const texts = [...document.querySelectorAll("body *")].filter((e) =>
        e.checkVisibility({ opacityProperty: true, visibilityProperty: true }) &&
        !e.closest(".sr-only, .wrap.hide, svg") && !e.disabled &&
        [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()));
    return texts.map((e) => {
        const [a, b] = [rgba(getComputedStyle(e).color).slice(0, 3), behind(e)].map(luminance);
        return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.textContent.trim().slice(0, 40)];
    }).sort((a, b) => a[0] - b[0])[0];
}"""

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser: {CHROMIUM} is not there")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=60_000)  # generous, for a machine with other work
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the server's feedback."""
    return tmp_path_factory.mktemp("feedback")


@pytest.fixture(scope="module")
def server(folder: Path, kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that asks for feedback, and whose models have a card."""
    models = shutil.copytree(folder, tmp_path_factory.mktemp("site") / "models")
    write_scripted(models / "rich.gguf", [part.encode() for part in RICH])
    card = {
        "base": {"name": "owner/base", "revision": "0123abcd"},
        "evaluation": {"base": {"loss": 2.5}, "tuned": {"loss": 0.25, "accuracy": 0.9}},
        "files": [{"file": "random.gguf", "bytes": (models / "random.gguf").stat().st_size, "tokens_per_second": 1234}],
        "prompts": ["Sing to me", "x" * 81],
    }
    (models / "card.json").write_text(json.dumps(card))
    log = tmp_path_factory.mktemp("log") / "log.txt"
    with started_server(log, models=models, feedback=kept, **LIMITS) as (url, _):
        yield url
    assert log.read_text().splitlines() == [f"Tunesmith is on {url} (Ctrl-C stops it)"]


@pytest.fixture
def page(browser: Browser, server: str) -> Iterator[Page]:
    page = opened(browser, server)
    refused: list[str] = []
    page.on("console", lambda line: refused.append(line.text) if "Content Security Policy" in line.text else None)
    yield page
    page.context.close()
    assert not refused


def opened(
    browser: Browser, url: str, size: Any = DESK, scheme: Any = "light", agreed: bool = True, visitor: str = ""
) -> Page:
    """The page, loaded whole: Chromium drops requests when a network of the machine comes or goes, as a container's.

    Its visitor has agreed that judgements are kept, unless told otherwise.
    """
    context = browser.new_context(viewport=size, color_scheme=scheme)
    if agreed:
        known = AGREED | ({"id": visitor} if visitor else {})
        context.add_init_script(f"localStorage['tunesmith.visitor'] ??= '{json.dumps(known)}'")
    page = context.new_page()
    page.set_default_timeout(60_000)
    dropped: list[Any] = []
    page.on("requestfailed", lambda request: dropped.append(request))
    for _ in range(5):
        dropped.clear()
        page.goto(url)
        with suppress(AssertionError):
            expect(message(page)).to_be_visible(timeout=20_000)
        if not dropped:
            break
    page.add_style_tag(content="* { transition: none !important }")
    return page


def message(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message")


def pick(page: Page, model: str) -> None:
    page.get_by_role("combobox", name="Model", exact=True).click()
    page.get_by_role("option", name=model).click()


def say(page: Page, text: str) -> None:
    message(page).fill(text)
    message(page).press("Enter")


def answers(page: Page) -> Locator:
    return page.locator(".bot.message")


def questions(page: Page) -> Locator:
    return page.locator(".user.message")


def done(page: Page, text: str = ACCENTS) -> None:
    """The last answer is there, and whole."""
    expect(answers(page).last).to_contain_text(text)
    at_rest(page)


def at_rest(page: Page) -> None:
    """No answer is under way."""
    expect(page.locator("#message .submit-button")).to_be_visible()
    expect(page.get_by_role("button", name="Retry")).to_be_enabled()


def grown(page: Page) -> int:
    """The length of the last answer, when it has become longer than it was."""
    before = length = len(answers(page).last.inner_text())
    while length <= before:
        page.wait_for_timeout(50)
        length = len(answers(page).last.inner_text())
    return length


def ask(page: Page, text: str) -> None:
    before = answers(page).count()
    say(page, text)
    expect(answers(page)).to_have_count(before + 1)
    done(page)


def let_it_talk(page: Page) -> None:
    """Raises the limit of an answer until the page keeps it: while it is being drawn, it puts its own value back."""
    page.get_by_role("button", name="Settings").click()
    tokens = page.get_by_label("number input for Max tokens")
    while page.get_by_label("range slider for Max tokens").input_value() != "100000":
        tokens.fill("100000")
        tokens.press("Tab")
        page.wait_for_timeout(200)


def assert_free(server: str) -> None:
    """A program's question is answered: so the engine is free, though 100,000 tokens cannot be done."""
    answer = Client(server, verbose=False).predict("hi", model="nested/accents", api_name="/chat")
    assert answer["content"][0]["text"] == ACCENTS


def newest(kept: Path) -> Record:
    return read_records(kept).records[-1]


def test_a_visitor_who_leaves_frees_the_engine(page: Page, server: str) -> None:
    pick(page, "endless")
    let_it_talk(page)
    say(page, "For ever")
    expect(answers(page).last).to_contain_text(FAREWELL)
    page.close()
    assert_free(server)


def test_chat_change_the_model_and_stop(page: Page, server: str, kept: Path) -> None:
    ask(page, "Sing")
    figures = re.compile(r"^nested/accents · 9 tokens, \d+/s · \S+ s to the first, \S+ s in all$")
    expect(page.locator(".below").last).to_have_text(figures)

    pick(page, "endless")
    let_it_talk(page)
    say(page, "And again")
    expect(answers(page).last).to_contain_text(FAREWELL)
    page.get_by_role("button", name="Like", exact=True).last.click()
    expect(page.get_by_text("wait for its end")).to_be_visible()
    page.locator("#message .stop-button").click()
    assert_free(server)
    expect(page.locator("#message .submit-button")).to_be_visible()
    page.get_by_role("button", name="Dislike").last.click()  # what was shown by then can be judged
    expect(page.get_by_text(KEPT)).to_be_visible()
    record = newest(kept)
    assert isinstance(record, AnswerRecord)
    assert record.verdict == "bad"
    assert record.answer.text.startswith(f" {FAREWELL}")

    pick(page, "nested/accents")
    ask(page, "Once more")
    expect(questions(page)).to_have_count(3)


def test_an_example_of_the_card_is_asked(page: Page) -> None:
    expect(page.locator("#chat .example")).to_have_text(["Sing to me"])
    page.get_by_text("Sing to me").click()
    done(page)
    expect(questions(page)).to_have_text(["Sing to me"])


def test_retry_edit_and_undo(page: Page) -> None:
    ask(page, "One")
    ask(page, "Two")
    page.get_by_role("button", name="Retry").click()
    done(page)
    expect(questions(page)).to_have_text(["One", "Two"])
    expect(answers(page)).to_have_count(2)

    page.get_by_role("button", name="Edit").first.click()
    page.locator(".edit-textarea").fill("Another")
    page.get_by_role("button", name="Submit").click()
    expect(questions(page)).to_have_text(["Another"])
    done(page)

    page.get_by_role("button", name="Undo").click()
    expect(questions(page)).to_have_count(0)
    expect(message(page)).to_have_value("Another")


def test_a_question_that_cannot_be_answered_goes_back(page: Page) -> None:
    pick(page, "random")
    say(page, "x" * 600)
    expect(page.get_by_text("this model's maximum context length is 512")).to_be_visible()
    expect(message(page)).to_have_value("x" * 600)
    expect(questions(page)).to_have_count(0)
    say(page, "   ")
    expect(questions(page)).to_have_count(0)


def test_what_is_refused_takes_no_answer_away(page: Page) -> None:
    ask(page, "Sing")
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("button", name="More").click()
    page.get_by_label("Seed").fill("99999999999")
    page.get_by_label("Seed").press("Tab")
    refusal = page.get_by_text("seed must be a whole number from 0 to")
    page.get_by_role("button", name="Retry").click()
    expect(refusal).to_have_count(1)
    expect(answers(page)).to_contain_text([ACCENTS])
    page.get_by_role("button", name="Edit").first.click()
    page.locator(".edit-textarea").fill("Another")
    page.get_by_role("button", name="Submit").click()
    expect(refusal).to_have_count(2)
    expect(questions(page)).to_have_text(["Sing"])
    expect(answers(page)).to_contain_text([ACCENTS])


def test_conversations_are_listed_opened_and_deleted_also_after_a_reload(page: Page) -> None:
    ask(page, "The first")
    page.get_by_role("button", name="New chat").click()
    expect(questions(page)).to_have_count(0)
    ask(page, "The second")
    ask(page, "and on")
    listed = page.locator("#conversations label")
    expect(listed).to_have_text(["The second", "The first"])
    page.reload()
    expect(listed).to_have_text(["The second", "The first"])
    listed.last.click()
    expect(questions(page)).to_have_text(["The first"])
    listed.first.click()
    expect(questions(page)).to_have_text(["The second", "and on"])
    expect(answers(page).last).to_contain_text(ACCENTS)
    page.get_by_role("button", name="Delete").click()
    expect(listed).to_have_text(["The first"])
    expect(questions(page)).to_have_count(0)
    page.reload()
    expect(listed).to_have_text(["The first"])


def test_nothing_that_was_asked_is_lost(page: Page) -> None:
    pick(page, "endless")
    let_it_talk(page)
    say(page, "For ever")
    page.keyboard.type("typed right after")
    expect(answers(page).last).to_contain_text(FAREWELL)
    expect(message(page)).to_have_value("typed right after")

    page.reload()
    expect(questions(page)).to_have_text(["For ever"])
    expect(answers(page).last).to_contain_text(FAREWELL)
    before = grown(page)
    page.get_by_role("button", name="New chat").click()
    expect(questions(page)).to_have_count(0)
    page.locator("#conversations label", has_text="For ever").click()
    expect(answers(page).last).to_contain_text(FAREWELL)
    assert grown(page) > before
    page.locator("#message .stop-button").click()
    at_rest(page)

    page.get_by_role("button", name="Settings").click()
    page.get_by_label("number input for Max tokens").fill("5")
    page.get_by_label("number input for Max tokens").press("Tab")
    page.get_by_role("button", name="New chat").click()
    pick(page, "nested/accents")
    say(page, "Briefly")
    expect(answers(page)).to_have_text([ACCENTS[:2]])
    page.get_by_role("button", name="Continue").click()
    expect(answers(page)).to_have_text([ACCENTS])
    at_rest(page)
    expect(page.get_by_role("button", name="Continue")).to_have_count(0)
    expect(page.locator("#conversations label")).to_have_text(["Briefly", "For ever"])


def test_two_tabs_keep_each_other_s_conversations(page: Page) -> None:
    ask(page, "In the first tab")
    other = page.context.new_page()
    other.goto(page.url)
    listed, listed_there = (tab.locator("#conversations label") for tab in (page, other))
    expect(listed_there).to_have_text(["In the first tab"])
    ask(other, "In the second tab")
    expect(listed).to_have_text(["In the second tab", "In the first tab"])
    ask(page, "and on")
    expect(listed_there).to_have_text(["In the first tab", "In the second tab"])
    listed_there.first.click()
    expect(questions(other)).to_have_text(["In the first tab", "and on"])
    page.get_by_role("button", name="Delete").click()
    expect(questions(other)).to_have_count(0)
    page.reload()
    expect(listed).to_have_text(["In the second tab"])


def test_each_version_of_a_turn_is_kept(page: Page) -> None:
    ask(page, "One")
    pick(page, "other")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".bot-row .below")).to_have_text(re.compile("^other · .*2/2"))
    at_rest(page)
    page.get_by_role("button", name="Earlier version").click()
    expect(answers(page)).to_have_text([ACCENTS])
    page.get_by_role("button", name="Edit").last.click()
    page.locator(".edit-textarea").fill("By hand, with **stars**")
    page.get_by_role("button", name="Submit").click()
    expect(answers(page)).to_have_text(["By hand, with stars"])
    expect(page.locator(".bot-row .below")).to_have_text(re.compile("^nested/accents · .* · edited.*3/3"))

    pick(page, "nested/accents")
    page.get_by_role("button", name="Edit").first.click()
    page.locator(".edit-textarea").fill("Another")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator(".user-row .below")).to_have_text(re.compile("2/2"))
    done(page)
    page.get_by_role("button", name="Earlier version").click()
    expect(questions(page)).to_have_text(["One"])
    expect(answers(page)).to_have_text(["By hand, with stars"])


def test_a_conversation_keeps_its_settings_and_moves_with_a_file(page: Page, tmp_path: Path) -> None:
    page.get_by_role("button", name="Settings").click()
    system, listed = page.get_by_label("System prompt"), page.locator("#conversations label")
    system.fill("Be a pirate")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Attach a text file").click()
    chooser.value.set_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"with ``` in it"})
    expect(message(page)).to_have_value("a.txt:\n````\nwith ``` in it\n````\n")
    message(page).press("Enter")
    done(page)
    page.get_by_label("Name of this conversation").fill("Pirates")
    expect(listed).to_have_text(["Pirates"])

    page.get_by_role("button", name="New chat").click()
    pick(page, "other")
    system.fill("")
    say(page, "Two")
    expect(answers(page)).to_have_count(1)
    at_rest(page)
    listed.last.click()
    expect(system).to_have_value("Be a pirate")
    expect(page.get_by_role("combobox", name="Model", exact=True)).to_have_value(re.compile("nested/accents"))
    page.get_by_role("textbox", name="Search").fill("two")
    expect(listed).to_have_text(["Two"])
    page.get_by_role("textbox", name="Search").fill("")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export", exact=True).click()
    download.value.save_as(tmp_path / "one.json")
    assert download.value.suggested_filename == "Pirates.json"
    page.get_by_role("button", name="Delete").click()
    expect(listed).to_have_text(["Two"])

    (tmp_path / "bad.json").write_text('{"format": "tunesmith", "conversations": [{"id": "x", "nodes": [{"id": {}}]}]}')
    for name, said in (("bad.json", "0 imported, 1 cannot be read."), ("one.json", "1 imported.")):
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Import").click()
        chooser.value.set_files(tmp_path / name)
        expect(page.get_by_role("alert").last).to_have_text(said)
    listed.filter(has_text="Pirates").click()
    expect(answers(page)).to_have_text([ACCENTS])
    expect(system).to_have_value("Be a pirate")


def test_an_answer_is_shown_as_it_is_meant_and_copied_as_it_was_given(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    pick(page, "rich")
    say(page, "x<y and z>w")
    expect(answers(page)).to_contain_text(["\u4f60\u597d"])
    at_rest(page)
    expect(questions(page)).to_contain_text(["x<\u2063y and z>w"])
    answer = answers(page).last
    expect(answer.locator(".katex")).to_have_count(4)  # none of the sums, of the code and, folded, of the thought
    expect(answer).to_contain_text(", for $5 or $10. If a<\u2063b and c>d, stop: e<f and $g$.")
    expect(answer.locator("pre")).to_have_text("<b>x</b>\n")
    thought = answer.get_by_role("button", name="Thought")
    expect(thought).to_have_attribute("aria-expanded", "false")
    thought.click()
    expect(answer).to_contain_text(" or b?")

    expect(answer.get_by_role("checkbox", name="done")).to_be_checked()
    expect(answer.locator("pre")).to_have_attribute("tabindex", "0")
    directions = "(elements) => elements.map((element) => getComputedStyle(element).direction)"
    for part, direction in (("p", "rtl"), ("ul", "rtl"), ("table", "rtl"), ("pre", "ltr"), (".katex", "ltr")):
        assert direction in answer.locator(part).evaluate_all(directions), part
    hebrew = answer.locator("p", has_text="\u05e9\u05dc\u05d5\u05dd")
    assert hebrew.evaluate("(element) => getComputedStyle(element).textAlign") == "start"

    page.get_by_role("button", name="Copy message").last.click()
    said = "".join(RICH).partition("</think>\n\n")[2]
    page.wait_for_function("(said) => navigator.clipboard.readText().then((text) => text === said)", arg=said)


def test_what_is_no_formula_and_no_html_is_told_by_marks(page: Page) -> None:
    cases = {
        "$x$, $5 or $10": "$|x|$, $5 or $10",
        "US$5-US$6, \\$5$": "US$5-US$6, \\$5$",
        "vector<int> v": "vector<|int> v",
        "x <b> y": "x <|b> y",
        "<!-- said -->": "<|!-- said -->",
        "x <b>y</b><br>": "x <b>y</b><br>",
        "<https://a.example>": "<https://a.example>",
        "`a<b $x$`\n~~~\na<b $x$": "`a<b $x$`\n~~~\na<b $x$",
    }
    marked = page.evaluate("(texts) => texts.map(tunesmith.marked)", list(cases))
    assert [text.replace("\u2063", "|") for text in marked] == list(cases.values())


def test_conversations_of_an_earlier_version_are_taken_over(page: Page) -> None:
    figures = "9 tokens, 50/s"
    answer = {"role": "assistant", "content": [{"type": "text", "text": part} for part in ("Hello.", figures)]}
    asked = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
    kept = [{"id": "old", "messages": [asked, {**answer, "metadata": {"id": "f" * 32}}]}]
    page.evaluate("(kept) => tunesmith.start({ names: {} }, true, kept)", kept)
    page.reload()
    page.locator("#conversations label", has_text="Hi").click()
    expect(answers(page)).to_have_text(["Hello."])
    expect(page.locator(".bot-row .below")).to_have_text(figures)


def test_a_thumb_reasons_and_a_comment_are_kept(page: Page, kept: Path) -> None:
    ask(page, "Sing")
    page.get_by_role("button", name="Dislike").click()
    expect(page.get_by_text(KEPT)).to_be_visible()
    first = newest(kept)
    assert isinstance(first, AnswerRecord)
    assert (first.verdict, first.reasons, first.comment) == ("bad", (), "")
    assert (first.answer.text, first.messages[0]["content"]) == (ACCENTS, "Sing")
    assert first.answer.model.name == "nested/accents"
    assert first.answer.model.revision
    assert first.answer.timings
    assert first.answer.timings.tokens == 9
    assert first.sampling["temperature"] == 0.3

    page.get_by_label("Too short").check()
    page.get_by_placeholder("Anything to add?").fill("More, please")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_label("Too short")).to_be_hidden()
    second = newest(kept)
    assert (second.id, second.reasons, second.comment) == (first.id, ("too_short",), "More, please")

    page.get_by_role("button", name="Like", exact=True).click()
    expect(page.get_by_label("Accurate")).to_be_visible()
    changed = newest(kept)
    assert isinstance(changed, AnswerRecord)
    assert (changed.id, changed.verdict, changed.reasons) == (first.id, "good", ())
    page.get_by_role("button", name="Liked").click()
    expect(page.get_by_text("Taken back.")).to_be_visible()
    last = newest(kept)
    assert isinstance(last, AnswerRecord)
    assert (last.id, last.verdict) == (first.id, None)


def test_a_visitor_is_asked_once_sees_what_is_kept_and_deletes_it(browser: Browser, server: str, kept: Path) -> None:
    page = opened(browser, server, agreed=False)
    dialog = page.get_by_role("dialog", name="May this be kept?")

    def own() -> list[Record]:
        return [record for record in read_records(kept).records if record.visit and record.visit.visitor == visitor]

    ask(page, "Sing of me")
    page.get_by_role("button", name="Like", exact=True).click()
    expect(dialog).to_contain_text(CONSENT.kept)
    expect(dialog).to_contain_text(CONSENT.purpose)
    assert page.evaluate(CONTRAST)[0] >= 4.5
    dialog.get_by_role("button", name="Keep nothing").click()
    expect(page.get_by_text("Not kept")).to_be_visible()
    expect(page.get_by_role("button", name="Liked")).to_have_count(0)
    assert page.evaluate("localStorage.getItem('tunesmith.visitor')") is None

    page.get_by_role("button", name="Like", exact=True).click()
    dialog.get_by_role("button", name="Keep it").click()
    expect(page.get_by_role("button", name="Liked")).to_be_visible()
    visitor = visitor_of(page.evaluate("JSON.parse(localStorage.getItem('tunesmith.visitor')).id"))
    page.get_by_role("button", name="Edit").last.click()
    page.locator(".edit-textarea").fill("La la")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("your version is kept")).to_be_visible()
    (first,) = own()
    assert isinstance(first, AnswerRecord)
    assert (first.verdict, first.answer.text, first.edited) == ("good", ACCENTS, "La la")
    assert first.visit
    assert first.visit.consent == CONSENT
    ask(page, "Sing again")
    page.get_by_role("button", name="Dislike").last.click()
    expect(page.get_by_text(KEPT)).to_be_visible()
    second = next(record for record in own() if record.id != first.id)
    assert second.visit
    assert second.visit.conversation == first.visit.conversation

    page.get_by_role("tab", name="Feedback").click()
    lines = page.locator("#own label")
    expect(lines).to_contain_text(["Bad · Sing again", "Good, edited · Sing of me"])
    expect(page.locator("#own-said")).to_contain_text(f"2 judgements of this browser, number {visitor}")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download all").click()
    given = json.loads(download.value.path().read_text())
    assert [record["id"] for record in given] == [second.id, first.id]
    lines.first.click()
    page.get_by_role("button", name="Delete what is ticked").click()
    expect(page.locator("#own-said")).to_contain_text("1 judgement deleted. 1 judgement of this browser")
    assert [record.id for record in own()] == [first.id]
    page.get_by_role("tab", name="Chat").click()
    expect(page.get_by_role("button", name="Disliked")).to_have_count(0)  # the thumb is off
    page.get_by_role("tab", name="Feedback").click()
    page.get_by_role("button", name="Delete all").click()
    expect(page.locator("#own-said")).to_contain_text("1 judgement deleted. Nothing of this browser is kept.")
    assert not own()
    assert all(visitor.encode() not in path.read_bytes() for path in kept.iterdir())
    page.context.close()


def test_a_visitor_sees_nobody_else_s_and_may_take_another_number(
    browser: Browser, server: str, kept: Path, page: Page
) -> None:
    ask(page, "Mine")
    page.get_by_role("button", name="Like", exact=True).click()
    expect(page.get_by_text(KEPT)).to_be_visible()
    other = opened(browser, server, agreed=False)
    other.get_by_role("tab", name="Feedback").click()
    expect(other.get_by_text("Nothing of this browser is kept.")).to_be_visible()
    kept_number = visitor_of(AGREED["id"])  # as everybody finds it who reads the records
    for guess in (kept_number, None, ["x"]):
        other.evaluate("(id) => localStorage.setItem('tunesmith.visitor', JSON.stringify({ id }))", guess)
        other.get_by_role("tab", name="Chat").click()
        other.get_by_role("tab", name="Feedback").click()
        expect(other.locator("#own label")).to_have_count(0)
    other.context.close()
    page.get_by_role("tab", name="Feedback").click()
    expect(page.locator("#own label").filter(has_text="Mine")).to_have_count(1)
    page.get_by_role("button", name="New number").click()
    expect(page.get_by_text("Nothing of this browser is kept.")).to_be_visible()
    assert newest(kept).visit
    assert page.evaluate("localStorage.getItem('tunesmith.visitor')") is None


def test_a_new_answer_has_no_thumb_of_an_old_one(page: Page) -> None:
    ask(page, "Sing")
    page.get_by_role("button", name="Like", exact=True).click()
    expect(page.get_by_role("button", name="Liked")).to_be_visible()
    page.get_by_role("button", name="Retry").click()
    done(page)
    expect(page.get_by_role("button", name="Like", exact=True)).to_be_visible()
    expect(page.get_by_text(KEPT)).to_be_hidden()


def test_two_models_are_compared_blind_until_the_vote(page: Page, kept: Path) -> None:
    page.get_by_role("tab", name="Compare").click()
    expect(page.get_by_text("Memory holds one model at a time here")).to_be_visible()
    for label, model in (("One model", "nested/accents"), ("The other", "rich")):
        page.get_by_role("combobox", name=label).click()
        page.get_by_role("option", name=model).click()
        expect(page.get_by_role("option")).to_have_count(0)
    page.get_by_role("textbox", name="Question for both").fill("Sing")
    page.keyboard.press("Enter")
    sides = page.locator(".side")
    vote = page.get_by_role("button", name="A is better")
    expect(vote).to_be_visible()
    expect(page.locator(".side h3")).to_have_text(["Answer A", "Answer B"])
    expect(sides.filter(has_text=ACCENTS)).to_have_count(1)
    expect(sides.get_by_role("group")).to_have_text(re.compile(r"^Thought\s+Is it a.* or b\?"))  # folded
    expect(sides.first).to_contain_text(re.compile(r"\d+ tokens, \d+/s · \S+ s to the first, \S+ s in all"))
    assert "accents" not in page.locator("#answers").inner_html()

    vote.click()
    expect(page.get_by_text(KEPT)).to_be_visible()
    record = newest(kept)
    assert isinstance(record, ComparisonRecord)
    assert (record.vote, record.blind, record.messages[0]["content"]) == ("left", True, "Sing")
    names = [record.left.model.name, record.right.model.name]
    assert sorted(names) == ["nested/accents", "rich"]
    expect(page.locator(".side h3")).to_have_text(names)
    texts = dict(zip(names, (record.left.text, record.right.text), strict=True))
    assert texts["nested/accents"] == ACCENTS
    assert texts["rich"] == "".join(RICH)

    page.get_by_role("button", name="Both bad").click()
    page.get_by_label("Wrong facts").check()
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_label("Wrong facts")).to_be_hidden()
    changed = newest(kept)
    assert isinstance(changed, ComparisonRecord)
    assert (changed.id, changed.vote, changed.reasons) == (record.id, "both_bad", ("wrong_facts",))
    assert not changed.blind  # the names were seen by then


def test_the_card_is_the_picked_model_s(page: Page) -> None:
    page.get_by_role("tab", name="Model").click()
    card = page.locator("#card")
    expect(card).to_contain_text("accents.gguf, ")
    expect(card).to_contain_text("262,144 tokens")
    pick(page, "random")
    expect(card.get_by_role("heading", name="random")).to_be_visible()
    expect(card).to_contain_text("owner/base at 0123abcd")
    expect(card.get_by_role("row", name="Loss")).to_have_text("Loss2.50000.2500")
    expect(card.get_by_role("row", name="Accuracy")).to_have_text("Accuracy90.0%")
    expect(card.get_by_role("row", name="Tokens/s")).to_have_text("Tokens/s1,234")


def test_a_phone_has_all_of_it_without_scrolling_sideways(browser: Browser, server: str) -> None:
    page = opened(browser, server, PHONE)

    def assert_it_fits() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") == 390

    ask(page, "Sing")
    page.get_by_role("button", name="Dislike").click()
    expect(page.get_by_label("Too short")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollHeight") == 800  # the message's box stays in sight
    assert_it_fits()
    page.get_by_role("button", name="Toggle Sidebar").click()
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_label("System prompt")).to_be_in_viewport()
    expect(page.locator("#conversations")).to_be_in_viewport()
    assert_it_fits()
    page.get_by_role("button", name="Toggle Sidebar").click()
    page.get_by_role("tab", name="Model").click()
    expect(page.locator("#card")).to_contain_text("accents.gguf")
    assert_it_fits()
    page.get_by_role("tab", name="Feedback").click()
    expect(page.locator("#own label").filter(has_text="Sing")).not_to_have_count(0)
    assert_it_fits()
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("textbox", name="Question for both").fill("Sing")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Tie")).to_be_visible()
    assert_it_fits()
    left, right = (side.bounding_box() for side in page.locator(".side").all())
    assert left
    assert right
    assert (left["x"], left["width"]) == (right["x"], right["width"])
    assert left["y"] + left["height"] <= right["y"]
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser: Browser, server: str, scheme: str) -> None:
    page = opened(browser, server, DESK, scheme)

    def assert_readable() -> None:
        contrast, text = page.evaluate(CONTRAST)
        assert contrast >= 4.5, text

    bright = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert bright == (scheme == "light")
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("button", name="More").click()
    assert_readable()
    ask(page, "Sing")
    page.get_by_role("button", name="Dislike").click()
    page.get_by_label("Too short").check()
    assert_readable()
    page.get_by_role("tab", name="Model").click()
    expect(page.locator("#card")).to_contain_text("accents.gguf")
    assert_readable()
    page.get_by_role("tab", name="Feedback").click()
    expect(page.locator("#own label").filter(has_text="Sing")).not_to_have_count(0)
    assert_readable()
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("textbox", name="Question for both").fill("Sing")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Tie").click()
    expect(page.get_by_label("Accurate")).to_be_visible()
    assert_readable()
    page.context.close()


def test_nothing_is_lost_by_a_kill(browser: Browser, folder: Path, tmp_path: Path) -> None:
    settings = {"models": folder, "feedback": tmp_path / "feedback", "port": free_port(), **LIMITS}
    with started_server(tmp_path / "log.txt", **settings) as (url, process):
        page = opened(browser, url)
        ask(page, "Sing")
        page.get_by_role("button", name="Like", exact=True).click()
        expect(page.get_by_text(KEPT)).to_be_visible()
        page.get_by_role("tab", name="Compare").click()
        page.get_by_role("textbox", name="Question for both").fill("Which?")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="B is better").click()
        expect(page.locator(".side h3").first).not_to_contain_text("Answer")
        process.kill()
    rows, preferences = exported(tmp_path / "feedback", tmp_path)
    assert {"messages": [{"role": "user", "content": "Sing"}, {"role": "assistant", "content": ACCENTS}]} in rows
    (preference,) = preferences
    assert preference["messages"] == [{"role": "user", "content": "Which?"}]
    assert ACCENTS in (preference["chosen"], preference["rejected"])
    with started_server(tmp_path / "log.txt", **settings) as (url, _):
        page.goto(url)
        page.locator("#conversations label", has_text="Sing").click()
        expect(answers(page)).to_contain_text([ACCENTS])
        page.get_by_role("button", name="Dislike").click()
        expect(page.get_by_text("Not kept: The server does not know this answer, or not yet all of it")).to_be_visible()
        expect(page.get_by_role("button", name="Dislike")).to_be_visible()

        shutil.rmtree(tmp_path / "feedback")  # stands for a disk that refuses
        ask(page, "Again")
        page.get_by_role("button", name="Like", exact=True).last.click()
        expect(page.get_by_text("Not kept: Your feedback could not be kept")).to_be_visible()
    page.context.close()


def test_the_next_model_answers_the_next_question_of_an_open_page(browser: Browser, tmp_path: Path) -> None:
    for folder, name, word in (("one", "first", b" one"), ("two", "second", b" two")):
        (tmp_path / folder).mkdir()
        write_scripted(tmp_path / folder / f"{name}.gguf", [word, b"."], context=1 << 12)
    current = tmp_path / "current"
    current.symlink_to(tmp_path / "one")
    settings: dict[str, Any] = {"models": current, "feedback": tmp_path / "feedback", "follow_seconds": 1, "rate": 0}
    with started_server(tmp_path / "log.txt", **settings) as (url, _):
        page = opened(browser, url)
        say(page, "Who?")
        done(page, "one.")
        expect(page.locator(".below").last).to_have_text(re.compile(r"^first \([0-9a-f]{12}\) · 2 tokens"))
        current.with_name("next").symlink_to(tmp_path / "two")
        current.with_name("next").replace(current)
        wait_until(lambda: "second" in httpx.get(f"{url}/v1/models").text)
        page.get_by_role("button", name="Like", exact=True).click()
        expect(page.get_by_text(KEPT)).to_be_visible()
        record = newest(tmp_path / "feedback")
        assert isinstance(record, AnswerRecord)
        assert (record.answer.text, record.answer.model.digest) == (" one.", sha256(tmp_path / "one" / "first.gguf"))
        say(page, "And now?")
        done(page, "two.")
        expect(page.locator(".below").last).to_have_text(re.compile(r"^second \([0-9a-f]{12}\) · 2 tokens"))
        expect(answers(page).first).to_contain_text("one.")
        page.reload()
        expect(answers(page)).to_have_count(2)
        expect(page.get_by_role("combobox", name="Model", exact=True)).to_have_value(re.compile(r"^second \("))
        say(page, "Still?")
        expect(answers(page)).to_have_count(3)
        done(page, "two.")
    page.context.close()
    assert (tmp_path / "log.txt").read_text().splitlines()[1:] == [
        f"{current} leads to {tmp_path}/two now, and no more to {tmp_path}/one"
    ]


def exported(kept: Path, out: Path) -> list[Any]:
    """What the command line makes of a folder of feedback: rows to train on, and preferences."""
    rows, preferences = out / "rows.jsonl", out / "preferences.jsonl"
    line = [sys.executable, "-m", "serve.feedback", "export", "--folder", kept, "--out", rows]
    subprocess.run([*line, "--preferences", preferences], cwd=ROOT, check=True, capture_output=True)
    return [[json.loads(row) for row in path.read_text().splitlines()] for path in (rows, preferences)]


@pytest.mark.parametrize(
    ("preferred", "found", "won", "action"),
    [("new", "better", 3, "promoted"), pytest.param("old", "worse", 0, "withdrawn", marks=pytest.mark.long)],
)
def test_a_candidate_answers_unnamed_until_visitors_have_found_it_better_or_worse(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preferred: str, found: str, won: int, action: str
) -> None:
    """Of a real registry: three visitors vote, the canary is decided, and the server follows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for name, words in SAID.items():
        write_scripted(tmp_path / f"{name}.gguf", [f" {word}".encode() for word in words.split()])
    register_champion_and_candidate(tmp_path / "old.gguf", tmp_path / "new.gguf")
    sources = {"models": "models:/tunesmith@champion", "canary": "models:/tunesmith@candidate", "canary_share": 1}
    more = {"feedback": tmp_path / "feedback", "follow_seconds": 1, "max_loaded_models": 2, "rate": 0}
    with started_server(tmp_path / "log.txt", **sources, **more) as (url, _):
        for number in range(3):
            page = opened(browser, url, visitor=f"{number:032x}")
            vote_for(page, SAID[preferred])
            page.context.close()
        page = opened(browser, url)
        say(page, "Well?")
        done(page, SAID["new"])
        expect(page.locator(".below").last).to_contain_text("tunesmith@champion/old")
        assert cli.run(["canary", "watch", "--once", "canary.level=0.99", "canary.per_visitor=1"]) == 0
        wait_until(lambda: "candidate" not in served(url))
        say(page, "And now?")
        done(page, SAID[preferred])
        expect(page.locator(".below").last).to_contain_text(f"tunesmith@champion/{preferred}")
        page.context.close()
    kept = CanaryRecord.read(Path("reports/canary.json"))
    assert (kept.found, kept.action) == (found, action)
    assert kept.why.startswith(f"the candidate is {found}; blind votes {won} won, {3 - won} lost")
    assert "Traceback" not in (tmp_path / "log.txt").read_text()


SAID = {"old": "all as ever", "new": "something else"}


def register_champion_and_candidate(*files: Path) -> None:
    """As `tunesmith promote` and `tunesmith canary start` have them, of files that nobody evaluated."""
    (Path.cwd() / "conf").symlink_to(ROOT / "conf")
    MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).search_experiments()  # which makes the database
    settings = load(compose(CONF)).tracking
    with mlflow_client(settings) as client:
        for path in files:
            tags = {"file": path.name, "bytes": str(path.stat().st_size), "sha256": sha256(path), "passed": "true"}
            version = register(client, settings, path.stem, [path], tags, None)
            if str(version.version) == "1":
                set_champion(client, version)
    assert cli.run(["canary", "start", "--version", "2"]) == 0


def vote_for(page: Page, text: str) -> None:
    """Compares blind, and votes for the answer with a text."""
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("textbox", name="Question for both").fill("Which?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="A is better")).to_be_visible()
    left = page.locator(".side").first.inner_text()
    page.get_by_role("button", name="A is better" if text in left else "B is better").click()
    expect(page.get_by_text(KEPT)).to_be_visible()


def served(url: str) -> str:
    with urllib.request.urlopen(f"{url}/v1/models", timeout=5) as response:  # noqa: S310 - http, to this machine
        return response.read().decode()
