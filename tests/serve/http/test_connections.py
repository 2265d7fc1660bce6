"""Clients that sit on the server: silent, slow, too many, or deaf until they have sent all."""

import http.client
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from servers import started_server

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HELD = 20
SITTING = {
    "silent": b"",
    "half a header": b"GET /healthz HTTP/1.1\r\nHost: loc",
    "half a body": POST + b'Content-Length: 400\r\n\r\n{"model"',
    "half a chunk": POST + b'Transfer-Encoding: chunked\r\n\r\nff\r\n{"model"',
    "half a second request": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /",
}
Started = tuple[str, subprocess.Popen, Path]


@pytest.fixture(scope="module")
def hasty(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A server that waits for nobody longer than a second."""
    log = tmp_path_factory.mktemp("hasty") / "log.txt"
    with started_server(log, until="/readyz", models=folder, model="random", rate=0, request_seconds=1) as started:
        yield *started, log


@pytest.fixture(scope="module")
def narrow(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A server that holds few connections, and waits for long."""
    log = tmp_path_factory.mktemp("narrow") / "log.txt"
    limits = {"rate": 0, "request_seconds": 600, "connections": HELD}
    with started_server(log, models=folder, model="random", **limits) as started:
        yield *started, log


def connected(url: str, address: str = "127.0.0.1") -> socket.socket:
    place = urlsplit(url)
    return socket.create_connection((place.hostname, place.port), timeout=60, source_address=(address, 0))


def ended(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    received = b""
    try:
        while part := connection.recv(1 << 16):
            received += part
    except ConnectionError:
        pass
    return received


def send_for_ever(connection: socket.socket, data: bytes, pause: float = 0) -> None:
    while True:
        connection.sendall(data)
        time.sleep(pause)


@pytest.mark.parametrize("sent", SITTING.values(), ids=SITTING)
def test_whoever_sits_on_the_server_is_left(hasty: Started, sent: bytes) -> None:
    with connected(hasty[0]) as sitter:
        sitter.sendall(sent)
        assert ended(sitter).count(b"HTTP/1.1 200") == sent.count(b"\r\n\r\nGET")


def test_headers_that_never_end_are_not_waited_for(hasty: Started) -> None:
    with connected(hasty[0]) as sitter:
        sitter.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        with pytest.raises(ConnectionError):
            send_for_ever(sitter, b"x", pause=0.1)


def test_a_body_that_goes_on_coming_is_waited_for(hasty: Started) -> None:
    body = b" " * 6000
    with connected(hasty[0]) as slow:
        slow.sendall(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 500):
            slow.sendall(body[start : start + 500])
            time.sleep(0.15)
        assert b"The body must be JSON" in ended(slow)


@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}, {"Transfer-Encoding": "chunked"}], ids=str)
def test_who_listens_only_when_all_is_sent_is_told_why_it_is_refused(hasty: Started, headers: dict[str, str]) -> None:
    place = urlsplit(hasty[0])
    body = [b"x" * (1 << 20)] * 4
    lengths = {} if "Transfer-Encoding" in headers else {"Content-Length": str(sum(map(len, body)))}
    client = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
    json = {"Content-Type": "application/json"}
    client.request(
        "POST", "/v1/completions", body, headers | lengths | json, encode_chunked="Transfer-Encoding" in headers
    )
    answer = client.getresponse()
    assert (answer.status, b"1000000 bytes at most" in answer.read()) == (413, True)


def test_a_body_without_an_end_is_not_read_for_ever(hasty: Started) -> None:
    with connected(hasty[0]) as flood:
        flood.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(ConnectionError):
            send_for_ever(flood, b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def test_the_log_has_few_lines_of_a_kind(hasty: Started) -> None:
    url, _, log = hasty
    for _ in range(30):
        with connected(url) as noisy:
            noisy.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
            assert b"400" in ended(noisy)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x", "Sec-WebSocket-Version": "13"}
    assert httpx.get(f"{url}/healthz", headers=upgrade).status_code == 200
    lines = [line for line in log.read_text().splitlines() if "Tunesmith is on" not in line]
    assert lines == ["WARNING:  Invalid HTTP request received."] * 10


def test_one_too_many_takes_the_place_of_the_one_that_was_waited_for_longest(narrow: Started) -> None:
    url = narrow[0]
    with ExitStack() as stack:
        other = stack.enter_context(connected(url, "127.0.0.3"))
        idle = [stack.enter_context(connected(url, "127.0.0.2")) for _ in range(HELD + 5)]
        assert [ended(connection) for connection in idle[:5]] == [b""] * 5
        newest = stack.enter_context(connected(url, "127.0.0.2"))
        for connection in (idle[-1], newest, other):
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert ended(connection).startswith(b"HTTP/1.1 200")


def test_without_descriptors_the_server_is_still_reached_and_the_log_stays_short(narrow: Started) -> None:
    url, server, log = narrow
    few = len(list(Path(f"/proc/{server.pid}/fd").iterdir())) + 10
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (few, few))
    with ExitStack() as stack:
        for number in range(60):
            stack.enter_context(connected(url, f"127.0.0.{2 + number % 6}"))
        assert httpx.get(f"{url}/readyz", timeout=60).status_code == 200
    lines = log.read_text().splitlines()
    assert 1 <= sum("No descriptor is left" in line for line in lines) <= 10
    assert "Traceback" not in log.read_text()
