"""The page in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tiny_gguf import ACCENTS, FAREWELL

CHROMIUM = Path("/usr/bin/chromium")
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser: {CHROMIUM} is not there")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, server: str) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.set_default_timeout(60_000)
    page.goto(server)
    yield page
    page.close()


def pick(page: Page, model: str) -> None:
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name=model).click()


def say(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Message").fill(text)
    page.keyboard.press("Enter")


def let_it_talk(page: Page) -> None:
    """Raises the limit of an answer until the page keeps it: while it is being drawn, it puts its own value back."""
    page.get_by_text("Settings").click()
    while page.get_by_label("range slider for Max tokens").input_value() != "100000":
        page.get_by_label("number input for Max tokens").fill("100000")
        page.keyboard.press("Tab")
        page.wait_for_timeout(500)


def test_a_visitor_who_leaves_frees_the_engine(page: Page, server: str) -> None:
    pick(page, "endless")
    let_it_talk(page)
    say(page, "For ever")
    expect(page.locator(".bot.message").last).to_contain_text(FAREWELL)
    page.close()
    assert_free(server)


def assert_free(server: str) -> None:
    """A program's question is answered: so the engine is free, though 100,000 tokens cannot be done."""
    answer = Client(server, verbose=False).predict("hi", model="nested/accents", api_name="/chat")
    assert answer["content"][0]["text"] == ACCENTS


def test_chat_change_the_model_and_stop(page: Page, server: str) -> None:
    pick(page, "nested/accents")
    say(page, "Sing")
    answers = page.locator(".bot.message")
    expect(answers.last).to_contain_text(ACCENTS)
    expect(answers.last.locator(".figures")).to_contain_text("9 tokens")

    pick(page, "endless")
    let_it_talk(page)
    say(page, "And again")
    expect(answers.last).to_contain_text(FAREWELL)
    page.get_by_role("button", name="Stop").click()
    assert_free(server)

    pick(page, "nested/accents")
    say(page, "Once more")
    expect(answers.last).to_contain_text(ACCENTS)
    expect(page.locator(".user.message")).to_have_count(3)
