import signal
import socket
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from servers import answers, started_server, wait_until
from tiny_gguf import ACCENTS

from serve.page.answers import conversation


def client(url: str) -> Client:
    return Client(url, verbose=False)


def said(answer: dict) -> str:
    return answer["content"][0]["text"]


def test_the_chat_answers_programs_with_text_and_figures(server: str) -> None:
    answer = client(server).predict("hi", model="nested/accents", api_name="/chat")
    assert said(answer) == ACCENTS
    assert answer["content"][1]["text"].startswith("9 tokens, ")


def test_the_chat_is_the_only_thing_that_programs_are_told_of(server: str) -> None:
    told = client(server).view_api(return_format="dict", print_info=False)
    assert list(told["named_endpoints"]) == ["/chat"]
    assert not told["unnamed_endpoints"]


def test_a_seat_remembers_its_own_conversation(server: str) -> None:
    one, two = client(server), client(server)
    settings = {"model": "random", "temperature": 0, "max_tokens": 20, "api_name": "/chat"}
    first, again = one.predict("hi", **settings), one.predict("hi", **settings)
    assert said(two.predict("hi", **settings)) == said(first) != said(again)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"temperature": 2.5}, "temperature must be a number from 0 to 2, not 2.5"),
        ({"temperature": None}, "temperature must be"),
        ({"max_tokens": 1 << 18}, "max tokens must be a whole number from 1 to 131072"),
        ({"max_tokens": "many"}, "max tokens must be"),
        ({"message": "x" * 8001}, "The text has 8,001 characters in a row"),
        ({"system": ["x"]}, "A message must be text"),
        ({"message": ""}, "The message is empty"),
        ({"message": "x" * 600}, r"takes 6\d\d tokens, and this model's maximum context length is 512"),
        ({"model": "../random"}, r"no model named '\.\./random'"),
    ],
    ids=["hot", "null", "long answer", "text", "run", "list", "empty", "beyond context", "model"],
)
def test_programs_are_held_to_the_limits_too(server: str, request_: dict, text: str) -> None:
    with pytest.raises(AppError, match=text):
        client(server).predict(**{"message": "hi"} | request_, api_name="/chat")


@pytest.mark.parametrize("path", ["upload", "process_recording"])
def test_no_files_are_taken(server: str, path: str) -> None:
    upload = urllib.request.Request(f"{server}/gradio_api/{path}", data=b"x", method="POST")  # noqa: S310 - http
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(upload, timeout=10)  # noqa: S310


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/passwd",
        "gradio_api/file=../../../../etc/passwd",
        "gradio_api/file%3D%2Fetc%2Fpasswd",
        "file=/etc/passwd",
        "gradio_api/file={folder}/random.gguf",
        "gradio_api/stream/a/b/../../../../etc/passwd",
        "gradio_api/proxy=http://127.0.0.1:1/etc/passwd",
        "static/../../../../../../../../etc/passwd",
        "static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "assets/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "theme.css/../../etc/passwd",
        "custom_component/a/b/c/../../../../../../etc/passwd",
    ],
)
def test_no_file_is_given(server: str, folder: Path, path: str) -> None:
    host = urllib.parse.urlsplit(server)
    with socket.create_connection((str(host.hostname), int(host.port or 0)), timeout=10) as asker:  # as it is written
        asked = path.format(folder=folder)
        asker.sendall(f"GET /{asked} HTTP/1.1\r\nHost: {host.netloc}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: asker.recv(1 << 16), b""))
    status = int(answer.split()[1])
    assert 400 <= status < 500, answer[:200]
    assert b"root:" not in answer
    assert b"GGUF" not in answer


def test_a_program_that_cancels_frees_the_engine(server: str) -> None:
    job = client(server).submit("hi", model="endless", max_tokens=1 << 17, api_name="/chat")
    wait_until(job.outputs)
    job.cancel()
    assert said(client(server).predict("hi", model="nested/accents", api_name="/chat")) == ACCENTS


def test_two_are_answered_at_once(server: str) -> None:
    jobs = [client(server).submit("hi", model="endless", max_tokens=1 << 17, api_name="/chat") for _ in range(2)]
    wait_until(lambda: all(job.outputs() for job in jobs))
    for job in jobs:
        job.cancel()


def test_more_than_may_wait_are_turned_away(folder: Path, tmp_path: Path) -> None:
    limits = {"models": folder, "model": "endless", "context": 1 << 18, "max_tokens": 1 << 17, "queue": 1, "slots": 1}
    with started_server(tmp_path / "log.txt", **limits) as (url, _):
        running = client(url).submit("hi", max_tokens=1 << 17, api_name="/chat")
        wait_until(running.outputs)
        others = [client(url).submit("hi", max_tokens=1 << 17, api_name="/chat") for _ in range(3)]
        wait_until(lambda: sum(job.done() for job in others) == 2)  # one waits
        refusals = [str(job.exception()) for job in others if job.done()]
        assert all("Queue is full" in refusal for refusal in refusals), refusals


def test_sigterm_ends_the_server_while_it_generates(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    limits = {"models": folder, "model": "endless", "context": 1 << 18, "max_tokens": 1 << 17}
    with started_server(log, **limits) as (url, process):
        job = client(url).submit("hi", max_tokens=1 << 17, api_name="/chat")
        wait_until(job.outputs)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert not answers(f"{url}/healthz")
    assert "Traceback" not in log.read_text()


def test_the_log_holds_no_word_of_a_conversation(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with started_server(log, models=folder, model="random") as (url, _):
        client(url).predict("xylophone", api_name="/chat")
        with pytest.raises(AppError):
            client(url).predict("xylophone", temperature=9, api_name="/chat")
    assert log.read_text().splitlines() == [f"Tunesmith is on {url} (Ctrl-C stops it)"]


def test_the_log_holds_no_word_of_a_forged_request_either(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with started_server(log, models=folder, feedback=tmp_path / "feedback") as (url, _):
        config = httpx.get(f"{url}/config").json()
        told = {component["id"] for component in config["components"] if component["type"] == "json"}
        asked = [event for event in config["dependencies"] if event["backend_fn"] and told & {*event["inputs"]}]
        for event in asked:
            body = {"fn_index": event["id"], "session_hash": "forged", "event_data": {"xylophone": 1}}
            for value in ("xylophone", {"id": "xylophone"}, ["xylophone"]):
                data = [value] * len(event["inputs"])
                httpx.post(f"{url}/gradio_api/run/predict", json=body | {"data": data})
        assert {"like", "stop"} <= {name for event in asked for _, name in event["targets"]}
    assert "xylophone" not in log.read_text()


def test_unanswered_questions_stay_out_of_the_conversation() -> None:
    asked = {"role": "user", "content": "one"}
    answered = {"role": "assistant", "content": "1", "reasoning_content": "one is 1"}
    last = {"role": "user", "content": "two"}
    turns = [{"role": "user", "content": "refused"}, asked, answered, {"role": "user", "content": "stopped"}, last]
    assert conversation(" ", turns) == [asked, answered, last]
    assert conversation("be brief", [last]) == [{"role": "system", "content": "be brief"}, last]
