"""Who may ask through a visitor's browser: the server's own page. tests/serve/page has the browser itself."""

import httpx
import pytest
from fastapi.testclient import TestClient

from serve.http.app import build_app
from serve.settings import Settings

FOREIGN = [
    "https://evil.example",
    "http://127.0.0.1:1",
    "https://127.0.0.1",
    "null",
    "file://",
    "chrome-extension://x",
    "",
]
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
NAMED = "chat.example.com"


def asked(headers: dict[str, str], method: str = "GET", path: str = "/healthz", **changed: object) -> int:
    """The status with which a server of these settings answers; /healthz is there from the first."""
    settings = Settings(**{"host": "0.0.0.0"} | changed)  # type: ignore[arg-type]  # noqa: S104 - nobody listens
    return TestClient(build_app(settings)).request(method, path, headers=headers).status_code


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/config"),
        ("GET", "/gradio_api/heartbeat/x"),
        ("GET", "/metrics"),
        ("POST", "/gradio_api/queue/join"),
        ("POST", "/v1/chat/completions"),
        ("OPTIONS", "/config"),
        ("OPTIONS", "/v1/models"),
    ],
)
def test_another_site_is_refused_everywhere(server: str, origin: str, method: str, path: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    refused = httpx.request(method, f"{server}{path}", headers=headers)
    assert refused.status_code == 403
    assert "Pages of other web sites cannot ask this server" in refused.text
    assert not [name for name in refused.headers if name.startswith("access-control-")]


def test_the_page_s_own_origin_is_answered_and_no_origin_is_reflected(server: str) -> None:
    for headers in ({"Origin": server}, {"Origin": server, "Sec-Fetch-Site": "same-origin"}, {}):
        answer = httpx.get(f"{server}/config", headers=headers)
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_the_browser_s_own_word_counts_for_more_than_names_that_a_proxy_has_changed() -> None:
    own = {"Host": "127.0.0.1:7860", "Origin": f"https://{NAMED}"}
    assert asked(own) == 403
    assert asked(own | {"Sec-Fetch-Site": "same-origin"}) == 200
    for site in ("same-site", "cross-site"):
        assert asked({"Host": NAMED, "Origin": f"http://{NAMED}", "Sec-Fetch-Site": site}) == 403
        assert asked({"Host": NAMED, "Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}) == 403


@pytest.mark.parametrize("origin", [f"https://{NAMED}", f"https://{NAMED}:443", f"http://{NAMED.upper()}"])
def test_a_server_s_own_name_is_known_by_its_host_header(origin: str) -> None:
    assert asked({"Host": NAMED, "Origin": origin}) == 200
    assert asked({"Host": f"{NAMED}:8443", "Origin": origin}) == 403


def test_a_proxy_s_word_is_taken_where_there_is_one() -> None:
    passed = {"Host": "127.0.0.1:7860", "X-Forwarded-Host": f"{NAMED}, inner", "X-Forwarded-Proto": "https, http"}
    assert asked(passed | {"Origin": f"https://{NAMED}"}, proxy=1) == 200
    assert asked(passed | {"Origin": f"http://{NAMED}"}, proxy=1) == 403
    assert asked(passed | {"Origin": f"https://{NAMED}"}) == 403


def test_a_link_leads_to_the_page_and_to_nothing_that_acts() -> None:
    assert asked(LINK) == 200
    assert [asked(LINK, path=path) for path in ("/health", "/readyz")] == [503, 503]  # by either name
    assert asked(LINK | {"Sec-Fetch-Dest": "iframe"}, path="/") == 503  # it has not started
    assert asked(LINK | {"Sec-Fetch-Dest": "embed"}, path="/") == 403
    assert asked(LINK, method="POST", path="/") == 403
    assert asked(LINK, path="/logout") == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:7860", 200),
        ("127.0.0.1", 200),
        ("[::1]:7860", 200),
        ("chat.localhost", 200),
        ("box", 200),
        (NAMED, 403),
        ("127.0.0.1.evil.example", 403),
        ("[::1", 403),
    ],
)
def test_a_server_for_this_machine_alone_has_no_name_of_a_stranger(host: str, status: int) -> None:
    assert asked({"Host": host}, host="127.0.0.1") == status
    assert asked({"Host": host}, host="127.0.0.1", proxy=1) == 200
