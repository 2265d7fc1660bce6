"""What a stranger's page and a model's answer cannot do, in a real browser."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from servers import started_server
from tiny_gguf import write_scripted

CHROMIUM = Path("/usr/bin/chromium")
SWITCHES = ("--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP *.example 127.0.0.1")
# Each way in which a page can ask another site, and what it gets to know of the answer.
ASK = """async (url) => {
    const body = JSON.stringify({ data: [], fn_index: 0, session_hash: "x" });
    const said = (answer) => answer.text().then((text) => `${answer.type} ${answer.status} ${text.length}`);
    const ask = (path, options) => fetch(url + path, options).then(said, () => "failed");
    const loaded = (source, opened, failed) => new Promise((done) => {
        source[opened] = () => done("opened");
        source[failed] = () => done("failed");
    });
    const json = { "Content-Type": "application/json" };
    const events = new EventSource(`${url}/gradio_api/heartbeat/x`, { withCredentials: true });
    const socket = new WebSocket(`${url.replace("http", "ws")}/gradio_api/queue/join`);
    const image = new Image();
    image.src = `${url}/static/img/logo.svg`;
    return Promise.all([
        loaded(events, "onopen", "onerror"),
        loaded(socket, "onopen", "onerror"),
        loaded(image, "onload", "onerror"),
        ask("/config"),
        ask("/config", { credentials: "include" }),
        ask("/v1/models"),
        ask("/gradio_api/queue/join", { method: "POST", body, credentials: "include" }),
        ask("/v1/chat/completions", { method: "POST", body, headers: json }),
    ]);
}"""
SEND = """(url) => {
    document.body.innerHTML = `<form method="post" enctype="text/plain" action="${url}/gradio_api/queue/join"></form>`;
    document.forms[0].submit();
}"""

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser: {CHROMIUM} is not there")


@pytest.fixture(scope="module")
def stranger() -> Iterator[tuple[str, list[str]]]:
    """Another web site, and what was asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<body>elsewhere</body>")

        do_POST = do_GET  # noqa: N815 - as http.server calls it

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://stranger.example:{server.server_port}", asked
        server.shutdown()


@pytest.fixture(scope="module")
def server(stranger: tuple[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server under a name, as behind a proxy, whose model answers with what HTML can do."""
    elsewhere, _ = stranger
    folder = tmp_path_factory.mktemp("hostile")
    answer = [
        f'Look: ![chart]({elsewhere}/a.png) <img src="{elsewhere}/b.png" alt="picture">',
        f'<div style="background: url({elsewhere}/c.png)">x</div><video src="{elsewhere}/d.mp4" autoplay></video>',
        f'<form action="{elsewhere}/e" method="post"><input name="password"><button>Log in</button></form>',
        '<div style="position: fixed; inset: 0; z-index: 99999; background: red">COVER</div>',
        '<div style="position: absolute; inset: -5000px; z-index: 99999; background: red">COVER</div>',
        '<style>body { display: none }</style><script>document.title = "taken"</script>',
        '<img src="/none.png" onerror="document.title = `taken`">',
    ]
    write_scripted(folder / "hostile.gguf", [part.encode() for part in answer])
    log = tmp_path_factory.mktemp("log") / "log.txt"
    with started_server(log, models=folder, host="0.0.0.0", rate=0) as (url, _):  # noqa: S104 - for its own names
        yield url.replace("127.0.0.1", "chat.example")


@pytest.fixture
def page() -> Iterator[Page]:
    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        browser: Browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser.new_page()
        browser.close()


@pytest.mark.parametrize("name", ["chat.example", "127.0.0.1"])  # the browser says Sec-Fetch-Site to the second alone
def test_a_stranger_s_page_learns_nothing_and_starts_nothing(
    page: Page, server: str, stranger: tuple[str, list[str]], name: str
) -> None:
    url = f"http://{name}:{urlsplit(server).port}"
    page.goto(stranger[0])
    assert page.evaluate(ASK, url) == ["failed"] * 8
    with page.expect_navigation():
        page.evaluate(SEND, url)
    assert "Pages of other web sites cannot ask this server" in page.inner_text("body")
    page.goto(stranger[0])
    page.set_content(f'<iframe src="{url}/"></iframe>')
    frame = page.frames[1]
    expect(frame.locator("gradio-app")).to_have_count(0)
    assert frame.url.startswith("chrome-error:")
    page.goto(stranger[0])
    page.set_content(f'<a href="{url}/">chat</a>')
    page.click("a")
    expect(page.get_by_role("textbox", name="Message")).to_be_visible()


def test_an_answer_s_html_stays_in_its_place_and_reaches_nobody(
    page: Page, server: str, stranger: tuple[str, list[str]]
) -> None:
    elsewhere, asked = stranger
    page.goto(server)
    message = page.get_by_role("textbox", name="Message")
    message.fill("Show me")
    message.press("Enter")
    expect(page.get_by_role("button", name="Retry")).to_be_enabled()
    asked.clear()
    answer = page.locator(".bot.message").first
    for name, file in (("chart", "a.png"), ("picture", "b.png")):
        expect(answer.get_by_role("link", name=name)).to_have_attribute("href", f"{elsewhere}/{file}")
    expect(answer.get_by_text("COVER")).to_have_count(2)
    page.get_by_role("button", name="New chat").click(trial=True)  # which nothing lies over
    message.click(trial=True)
    assert page.title() == "Tunesmith"

    assert asked == []
    with page.expect_popup() as opened:
        answer.get_by_role("link", name="chart").evaluate("(link) => link.click()")
    expect(opened.value).to_have_url(f"{elsewhere}/a.png")
    answer.locator("form").evaluate("(form) => form.requestSubmit()")
    page.wait_for_function("fetch('/healthz').then((answer) => answer.ok)")
    assert page.url == f"{server}/"
    assert "/e" not in asked
