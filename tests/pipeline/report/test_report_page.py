"""The page in a real browser, from disk: nothing runs, nothing is fetched, nothing sticks out on a phone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluation_sample import sample
from playwright.sync_api import Browser, Page, expect, sync_playwright
from records import record

from pipeline.report.files import write

CHROMIUM = Path("/usr/bin/chromium")
EVIL = "<script>document.title = 'taken'</script><img src='https://localhost/x' onerror=\"document.title = 'taken'\">"
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser: {CHROMIUM} is not there")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    evaluation = sample()
    evaluation["answers"]["tuned"][0]["reply"] = EVIL
    evaluation["answers"]["tuned"][1]["reply"] = "x" * 4000
    evaluation["prompts"][2] = "y" * 400
    write(record(evaluation), folder)
    return folder / "evaluation.html"


@pytest.fixture(params=[390, 1280])
def shown(browser: Browser, report: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The report as a phone and as a desk shows it; the requests that it makes are in `asked`."""
    page = browser.new_page(viewport={"width": request.param, "height": 800})
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    page.goto(report.as_uri())
    yield page
    assert asked == [report.as_uri()]
    page.close()


def test_a_reply_with_a_script_is_but_text(shown: Page) -> None:
    expect(shown.locator("[data-answer=tuned] .reply").first).to_have_text(EVIL)
    expect(shown).to_have_title("Evaluation of starter-m")


def test_nothing_is_wider_than_the_screen(shown: Page) -> None:
    wide = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && e.getClientRects().length"
    assert shown.evaluate(f"{wide} && e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML)") == []
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_one_gguf_at_a_time_stands_beside_base_and_tuned(shown: Page) -> None:
    answers = shown.locator("article").last.locator(".answer:visible h4")
    expect(answers).to_have_text(["base", "tuned", "Q4_K_M"])  # the smallest file
    shown.get_by_label("base-Q8_0").check()
    expect(answers).to_have_text(["base", "tuned", "base-Q8_0"])


def test_what_differs_is_marked(shown: Page) -> None:
    said = shown.locator("article").nth(3)
    expect(said.locator("[data-answer=base] mark")).to_have_text(["word 'dogs' begins with d."])
    expect(said.locator("[data-answer=Q4_K_M] mark")).to_have_count(0)
