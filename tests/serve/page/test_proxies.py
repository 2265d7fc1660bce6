"""The server behind real proxies that speak TLS, by the configurations of docs/serving.md."""

import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Request, expect, sync_playwright
from servers import ROOT, free_port, started_server, wait_until
from tiny_gguf import ACCENTS

CHROMIUM = Path("/usr/bin/chromium")
NAME, LOGIN, KEY = "chat.example.com", ("ann", "pass:word"), "key"
SWITCHES = ("--no-sandbox", "--disable-gpu", f"--host-resolver-rules=MAP {NAME} 127.0.0.1")
RATE = 30  # requests a minute, of which every address here has its own
HI: Any = [{"role": "user", "content": "hi"}]
COMMANDS = {
    "nginx": ["nginx", "-p", ".", "-e", "stderr", "-c", "proxy.conf"],
    "caddyfile": ["caddy", "run", "--config", "proxy.conf", "--adapter", "caddyfile"],
    "haproxy": ["haproxy", "-db", "-f", "proxy.conf"],
}
# Around what the documents have: what a distribution's own files say else, and that the tests' user may write here.
AROUND = {
    "nginx": "daemon off; pid nginx.pid; events {{}} http {{ access_log off; client_body_temp_path a;"
    " proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;\n{}\n}}",
    "caddyfile": "{{\n admin off\n auto_https off\n}}\n{}",
    "haproxy": "{}",
}

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser: {CHROMIUM} is not there"),
]


def configuration(kind: str, port: int, inner: int, certificate: Path) -> str:
    """What the documents have, with other ports and a certificate of our own."""
    text = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)
    changes = {"127.0.0.1:7860": f"127.0.0.1:{inner}", "/etc/ssl/chat.pem": str(certificate),
               "listen 443": f"listen {port}", "bind :443": f"bind :{port}",
               f"{NAME} {{": f"https://{NAME}:{port} {{\n    tls {certificate} {certificate}"}  # fmt: skip
    if kind != "caddyfile":
        changes.popitem()
    for old, new in changes.items():
        found = found.replace(old, new)
    return AROUND[kind].format(found)


@pytest.fixture(scope="module", params=COMMANDS)
def proxied(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, str, Path]]:
    """The port of a proxy, the server behind it, and the certificate that clients know."""
    kind, here = request.param, tmp_path_factory.mktemp(request.param)
    if not shutil.which(COMMANDS[kind][0]):
        pytest.skip(f"{COMMANDS[kind][0]} is not installed")
    certificate, key = here / "chat.pem", here / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}"]
    made += ["-addext", f"subjectAltName=DNS:{NAME}", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + key.read_text())
    limits = {"model": "nested/accents", "context": 1 << 18, "max_tokens": 1 << 17, "slots": 1, "max_loaded_models": 2}
    outer = {"login": ":".join(LOGIN), "api_key": KEY, "proxy": 1, "rate": RATE}
    with started_server(here / "log.txt", models=folder, **limits, **outer) as (url, _):
        port = free_port()
        inner = int(url.rpartition(":")[2])
        (here / "proxy.conf").write_text(configuration(kind, port, inner, certificate))
        with (here / "proxy.txt").open("w") as log:
            environment = {"PATH": "/usr/sbin:/usr/bin:/bin", "HOME": str(here)}
            proxy = subprocess.Popen(COMMANDS[kind], cwd=here, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            with client(port, certificate) as asking:
                wait_until(lambda: answers(asking) or proxy.poll() is not None)
            assert proxy.poll() is None, (here / "proxy.txt").read_text()
            yield port, url, certificate
        finally:
            proxy.terminate()
            proxy.wait(20)


def client(port: int, certificate: Path, address: str = "127.0.0.1") -> httpx.Client:
    """A program that knows the host by its name, and calls from an address."""
    context = ssl.create_default_context(cafile=str(certificate))
    named = {"Host": f"{NAME}:{port}", "Authorization": f"Bearer {KEY}"}

    class Named(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            request.extensions["sni_hostname"] = NAME
            return super().handle_request(request)

    transport = Named(verify=context, local_address=address)
    return httpx.Client(base_url=f"https://127.0.0.1:{port}", headers=named, transport=transport, timeout=60)


def answers(asking: httpx.Client) -> bool:
    try:
        return asking.get("/v1/models").status_code == 200
    except httpx.TransportError:
        return False


def stream(asking: httpx.Client, model: str = "endless") -> Any:
    body = {"model": model, "messages": HI, "stream": True, "max_tokens": 1 << 16}
    return asking.stream("POST", "/v1/chat/completions", json=body)


def test_streams_come_as_they_are_given_and_what_waits_is_told_so(proxied: tuple[int, str, Path]) -> None:
    port, inner, certificate = proxied
    with client(port, certificate, "127.0.0.2") as asking, stream(asking) as given:
        lines = (line for line in given.iter_lines() if line)
        assert [next(lines)[:6] for _ in range(20)] == ["data: "] * 20
        with client(port, certificate, "127.0.0.3") as other, stream(other) as waiting:
            assert next(waiting.iter_lines()) == ": waiting"  # after 10 s, since there is one slot
    idle = "tunesmith_answering 0.0"
    wait_until(lambda: idle in httpx.get(f"{inner}/metrics").text)  # who hangs up frees the place, through a proxy too


def test_addresses_are_told_apart_and_cannot_be_made_up(proxied: tuple[int, str, Path]) -> None:
    port, _, certificate = proxied
    with client(port, certificate, "127.0.0.4") as asking:
        statuses = [
            asking.get("/v1/models", headers={"X-Forwarded-For": f"1.2.3.{n}"}).status_code for n in range(RATE + 1)
        ]
    assert statuses == [200] * RATE + [429]
    with client(port, certificate, "127.0.0.5") as other:
        assert other.get("/v1/models").status_code == 200


def test_other_sites_and_the_inner_paths_are_closed(proxied: tuple[int, str, Path]) -> None:
    port, _, certificate = proxied
    with client(port, certificate, "127.0.0.6") as asking:
        for origin in ("https://evil.example", f"http://{NAME}:{port}", f"https://{NAME}:1", "null"):
            assert asking.get("/v1/models", headers={"Origin": origin}).status_code == 403
        for path in ("/metrics", "/healthz", "/readyz"):
            assert asking.get(path).status_code == 403
        own = {"Origin": f"https://{NAME}:{port}"}
        assert asking.get("/v1/models", headers=own).status_code == 200
        assert asking.get("/v1/models", headers=own | {"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_the_page_s_own_streams_are_not_held_back(proxied: tuple[int, str, Path]) -> None:
    port, _, certificate = proxied
    with client(port, certificate, "127.0.0.7") as asking:
        user, password = LOGIN
        assert asking.post("/login", data={"username": user, "password": password}).status_code == 200
        with asking.stream("GET", "/gradio_api/heartbeat/x", timeout=12) as given:  # which says a word in 15 s
            assert next(given.iter_lines()) == "data: ALIVE"


def test_the_page_is_let_in_and_remembers(proxied: tuple[int, str, Path]) -> None:
    port, _, _ = proxied
    url, faults = f"https://{NAME}:{port}/", list[str]()

    def watch(asked: Request) -> None:
        if not asked.url.startswith((url, "data:", "blob:")):
            faults.append(asked.url)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.set_default_timeout(60_000)
        page.on("request", watch)
        page.goto(url)
        page.get_by_label("username").fill(LOGIN[0])
        page.get_by_label("password").fill(LOGIN[1])
        page.get_by_role("button", name="Login").click()
        message = page.get_by_label("Message")
        message.wait_for()
        # Gradio's own page of the login complains without a proxy, too.
        page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
        message.fill("hi")
        message.press("Enter")
        expect(page.get_by_text(ACCENTS, exact=True)).to_be_visible(timeout=60_000)
        page.reload()
        expect(page.get_by_text(ACCENTS, exact=True)).to_be_visible(timeout=60_000)
        assert any(cookie["secure"] for cookie in page.context.cookies() if "token" in cookie["name"])
        browser.close()
    assert faults == []
