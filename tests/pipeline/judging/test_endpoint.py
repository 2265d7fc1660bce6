"""An endpoint that answers, falters, hangs, refuses or says nonsense; and a key that nobody sees."""

import logging
from dataclasses import replace

import pytest
from judge_server import DRIPS, SETTINGS, Said, at, completion, judge_server

from common.errors import UserError
from pipeline.judging import endpoint as module
from pipeline.judging.endpoint import Messages, endpoint

KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are as many as ever, and short."""
    monkeypatch.setattr(module, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.01)


def asked(*texts: str) -> list[Messages]:
    return [[{"role": "user", "content": text}] for text in texts]


def test_each_conversation_has_its_answer_whoever_is_first() -> None:
    with judge_server(lambda text, before: text.upper()) as judge:
        found = dict(at(f"{judge.url}/", at_once=3).ask_all(asked("a", "b", "c", "d", "e")))
        assert found == dict(enumerate("ABCDE"))
        body = judge.asked[0]
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("judge", 0, 16)
        assert judge.keys == [None] * 5


@pytest.mark.parametrize("fault", [(500, "down"), (429, "slow down"), (503, ""), b"<html>", b'{"choices": []}'])
def test_what_falters_is_asked_again(fault: Said) -> None:
    with judge_server(lambda text, before: fault if before < 3 else "A") as judge:
        assert list(at(judge.url).ask_all(asked("a"))) == [(0, "A")]
        assert len(judge.asked) == 4


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ((500, "still\ndown"), r"does not answer \(HTTP 500: still down\), 4 times in a row"),
        (b"nonsense", r"does not answer \(what it says is no chat completion\), 4 times"),
        ((401, "bad key"), "answers HTTP 401: bad key"),
        ((404, "no such model"), "answers HTTP 404: no such model"),
        ((307, "moved"), "answers HTTP 307"),  # whoever is there gets neither key nor texts
    ],
)
def test_an_endpoint_that_does_not_answer_ends_in_one_line_that_says_how_to_go_on(fault: Said, said: str) -> None:
    with judge_server(lambda text, before: "A" if before < 2 else fault) as judge:
        answers = at(judge.url).ask_all(asked("a", "b", "c", "d"))
        assert [next(answers), next(answers)] == [(0, "A"), (1, "A")]
        with pytest.raises(UserError, match=f"^the judge at {judge.url} {said}.*run the same command again$") as raised:
            next(answers)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("fault", [None, DRIPS])
def test_an_endpoint_that_hangs_is_given_up(fault: Said) -> None:
    with judge_server(lambda text, before: fault) as judge:
        with pytest.raises(UserError, match=r"does not answer \(timed out\)"):
            list(at(judge.url, seconds=0.1).ask_all(asked("a")))
        assert len(judge.asked) == 4


def test_what_an_endpoint_says_of_an_error_is_not_waited_for_without_end() -> None:
    with judge_server(lambda text, before: (401, DRIPS)) as judge:
        with pytest.raises(UserError, match="answers HTTP 401: Unauthorized"):
            list(at(judge.url, seconds=0.1).ask_all(asked("a")))
        assert not judge.ended.is_set()


def test_one_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"the judge at http://127\.0\.0\.1:9/v1 does not answer \(.*refused"):
        list(at("http://127.0.0.1:9/v1").ask_all(asked("a")))


def test_a_single_request_that_is_declined_keeps_no_other_from_its_answer(caplog: pytest.LogCaptureFixture) -> None:
    with judge_server(lambda text, before: (400, "too long") if text == "b" else "A") as judge:
        assert dict(at(judge.url).ask_all(asked("a", "b", "c"))) == {0: "A", 1: "", 2: "A"}
        assert "the judge declines 1 request (HTTP 400: too long)" in caplog.text
        with pytest.raises(UserError, match=r"declines every request \(HTTP 400: too long\)"):
            list(at(judge.url).ask_all(asked("b")))


def test_an_answer_without_a_text_is_an_empty_one() -> None:
    with judge_server(lambda text, before: completion(None)) as judge:
        assert list(at(judge.url).ask_all(asked("a"))) == [(0, "")]


def test_the_key_is_sent_and_never_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("JUDGE_KEY", f" {KEY}\n")
    caplog.set_level(logging.DEBUG)
    with judge_server(lambda text, before: (403, f"Incorrect API key provided: {KEY}")) as judge:
        with pytest.raises(UserError, match="Incorrect API key provided: KEY") as raised:
            list(at(judge.url, key="JUDGE_KEY").ask_all(asked("a")))
        assert judge.keys == [f"Bearer {KEY}"]
    assert KEY not in str(raised.value) + caplog.text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "localhost:8000"}, "evaluate.judge.url is no address of an API"),
        ({"url": f"https://me:{KEY}@host/v1"}, "evaluate.judge.url is no address of an API"),
        ({"url": f"https://host/v1?key={KEY}"}, "evaluate.judge.url is no address of an API"),
        ({"url": f"https://host/v1#{KEY}"}, "evaluate.judge.url is no address of an API"),
        ({"url": "https://[host/v1"}, "evaluate.judge.url is no address of an API"),
        ({"url": "https://host:eighty/v1"}, "evaluate.judge.url is no address of an API"),
        ({"model": None}, "evaluate.judge.model no model of it"),
        ({"key": KEY}, "evaluate.judge.key is no name of an environment variable"),
        ({"key": "UNSET_KEY"}, "the environment variable that evaluate.judge.key names is not set"),
        ({"key": "ODD_KEY"}, "has characters that no key has"),
        ({"url": None}, "evaluate.judge.model is set, and evaluate.judge.url names no endpoint"),
        ({"url": None, "model": None, "votes": "feedback"}, "evaluate.judge.votes is set"),
    ],
)
def test_settings_that_cannot_be_are_named(
    settings: dict[str, str | None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD_KEY", f"{KEY}\u00e9\nX: y")
    with pytest.raises(UserError, match=said) as raised:
        endpoint(replace(SETTINGS, **settings))
    assert KEY not in str(raised.value)


def test_without_a_url_nobody_is_asked() -> None:
    assert endpoint(replace(SETTINGS, url=None, model=None)) is None
