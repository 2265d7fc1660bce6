"""benchmarks/serve.py: what it asks, what it repeats and what not, how it judges; ours and `Llama` on a tiny model."""

import json
import math
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks import serve, serve_peers, serve_table
from benchmarks.serve_peers import Answer, Event

TINY_GGUF = Path(__file__).parents[1] / "helpers/tiny_gguf.py"
SIZES = replace(
    serve.QUICK, rounds=2, repeats=2, prompt=60, decode=12, system=20, turns=3, turn=20, together=30, together_answer=8
)
SETUP: dict[str, Any] = {
    "processor": "a CPU",
    "cpus": 2,
    "threads": 2,
    "packages": {"llama-cpp-python": "0.3.36"},
    "code": "of serve/",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that recites words, each a token."""
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, TINY_GGUF, folder], check=True)
    return folder / "reciter.gguf"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> serve.Bench:
    monkeypatch.setattr(serve, "code", lambda: SETUP["code"])
    bench = serve.Bench(tmp_path, "tiny", SETUP, SIZES)
    bench.runs.mkdir(parents=True)
    return bench


@pytest.fixture
def keep(bench: serve.Bench) -> Callable[..., None]:
    """Puts a result where a run would."""

    def keep(scenario: str, peer: str, number: int, **told: Any) -> None:
        bench.file(serve.Run(scenario, peer, number)).write_text(json.dumps({"wall_seconds": 1.0, **told}))

    return keep


def figures(**samples: list[float]) -> dict[str, Any]:
    return {"figures": {name.replace("_", " "): {"samples": values} for name, values in samples.items()}}


def letters(text: str) -> int:
    return len(text.replace(" ", ""))


# what is asked


@pytest.mark.parametrize("tokens", [1, 16, 97, 500])
def test_a_text_has_the_length_that_is_wanted(tokens: int) -> None:
    words = ["a", "tune", "melody"]
    text = serve.text_of(tokens, letters, words, random.Random(0))
    assert set(text.split()) <= set(words)
    assert tokens - max(map(len, words)) < letters(text) <= max(tokens, max(map(len, words)))
    assert len(serve.text_of(tokens, lambda text: len(text.split()), words, random.Random(0)).split()) == tokens


def test_no_two_users_ask_the_same() -> None:
    draw = random.Random(0)
    asked = {name: serve.questions(name, SIZES, lambda _: str(draw.random())) for name in serve.SCENARIOS}
    contents = re.findall(r'"content": "(0\.\d+)"', json.dumps([asked["one-user"], asked["four-users"]["waves"]]))
    assert len(contents) == 2 * SIZES.repeats + 2 * 4 * SIZES.repeats
    systems = {wave[0]["content"] for waves in asked["four-users"]["waves"] for wave in waves}
    assert len(systems) == 1
    assert len(set(contents)) == 2 * SIZES.repeats + 4 * SIZES.repeats + len(systems)
    users = asked["later-turns"]["alone"] + asked["later-turns"]["in turn"]
    assert len({text for user in users for text in user}) == (SIZES.lone + 4) * SIZES.turns
    chats = [json.dumps(chat) for chat in asked["load"]["chats"]]
    assert len(set(chats)) == SIZES.chats
    assert all(chat[-1]["role"] == "user" for chat in asked["load"]["chats"])


def test_the_random_model_has_the_shape_of_llama() -> None:
    count = sum(math.prod(shape) for shape in serve.tensor_shapes(128256).values())
    assert count == 1_235_814_400  # Llama 3.2 1B's


def test_the_random_model_says_words_of_one_token_and_never_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in {"LAYERS": 2, "WIDTH": 128, "FEED_FORWARD": 256, "HEADS": 2, "KV_HEADS": 1}.items():
        monkeypatch.setattr(serve, name, size)
    path = tmp_path / "random.gguf"
    serve.write_random(path)
    with serve_peers.plain({"model": str(path), "threads": 2}) as served:
        answer = served.chat([{"role": "user", "content": "Sing a tune."}], 40)
    assert answer.generated == len(answer.texts) == 40
    assert all(re.fullmatch(" [a-z]{3,}", text) for text in answer.texts)
    count = serve.token_counter(path)
    assert count("".join(answer.texts)) == 40  # so its history is what it has computed


# how it is timed


def test_times_are_those_of_texts_and_tokens_as_the_peer_tells() -> None:
    def events() -> Iterator[Event]:
        time.sleep(0.05)
        yield Event("")  # a role, say
        time.sleep(0.05)
        yield Event(" a", 1, prompt=30, cached=20)
        yield Event("", 2)  # a part of a character
        yield Event(" b", 4)
        yield Event("", 5)  # the sum at the end

    answer = serve_peers.timed(events())
    assert answer.texts == [" a", " b"]
    assert answer.tokens == [2, 5]
    assert (answer.prompt, answer.cached, answer.generated) == (30, 20, 5)
    assert 0.1 <= answer.first == answer.times[0] <= answer.times[1] <= answer.seconds


def test_a_text_is_a_token_where_the_peer_does_not_tell() -> None:
    answer = serve_peers.timed(iter([Event(" a"), Event(" b"), Event("")]))
    assert answer.tokens == [1, 2]
    assert answer.prompt is None


def test_speeds_are_of_the_tokens_after_the_first() -> None:
    answer = Answer(10.0, ["a", "b", "c"], [0.5, 0.75, 1.0], [1, 2, 5])
    assert answer.rate == pytest.approx(8)
    assert serve_peers.rate_together([answer, Answer(10.5, ["d"], [1.5], [3])]) == pytest.approx(4)
    assert Answer(0.0, ["a"], [0.5], [1]).rate is None
    assert Answer(0.0, seconds=2.0).first == 2.0


def test_where_two_answers_part() -> None:
    assert serve_peers.first_difference(["a", "b"], ["a", "b"]) is None
    assert serve_peers.first_difference(["a", "b"], ["a", "c"]) == 1
    assert serve_peers.first_difference(["a"], ["a", "c"]) == 1


def test_memory_grows_from_where_it_has_settled() -> None:
    memory = [(0.0, 10 * serve_peers.MIB), (1.0, 60 * serve_peers.MIB), (5.0, 62 * serve_peers.MIB)]
    assert serve_peers.growth(memory, 5.0) == pytest.approx(2)
    assert serve_peers.growth(memory[:1], 5.0) is None


@contextmanager
def listening(status: int, lines: list[str]) -> Iterator[str]:
    """The URL of a server that says the same to everybody."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write("\n\n".join(lines).encode())

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_is_asked_for_chat_completions() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    chunks: list[dict[str, Any]] = [
        {"choices": [{"delta": {"role": "assistant", "content": None}}]},
        {"choices": [{"delta": {"content": "Hel"}}]},
        {"choices": [{"delta": {"content": "lo"}}]},
        {"choices": [{"delta": {}, "finish_reason": "length"}]},
        {"choices": [], "usage": usage},
    ]
    lines = [f"data: {json.dumps(chunk)}" for chunk in chunks]
    with listening(200, [*lines, "data: [DONE]", ""]) as url:
        answer = serve_peers.http_chat(url)([{"role": "user", "content": "Hi"}], 3)
    assert answer.texts == ["Hel", "lo"]
    assert (answer.generated, answer.prompt, answer.cached) == (3, 9, 4)


@pytest.mark.parametrize(
    ("status", "lines", "error"),
    [
        (503, ["no slot"], serve_peers.Refused),
        (429, ["queue full"], serve_peers.Refused),
        (500, ["broken"], RuntimeError),
        (200, ['data: {"error": {"message": "too long"}}', ""], RuntimeError),
    ],
)
def test_being_turned_away_is_no_error_and_errors_are(status: int, lines: list[str], error: type[Exception]) -> None:
    with listening(status, lines) as url, pytest.raises(error):
        serve_peers.http_chat(url)([{"role": "user", "content": "Hi"}], 3)


def test_what_a_build_says_of_itself() -> None:
    told = "CPU : SSE3 = 1 | AVX = 1 | AMX_INT8 = 0 | REPACK = 1 | "
    assert serve_peers.instructions(told) == "SSE3 AVX REPACK"


# what is repeated and what not


def test_a_run_that_is_there_is_not_repeated_and_a_failed_peer_not_tried_again(
    bench: serve.Bench, keep: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep("later-turns", "ours", 0)
    keep("later-turns", "xllamacpp", 0, failed="it crashed")
    begun: list[tuple[str, int]] = []

    def measure(_: serve.Bench, run: serve.Run) -> dict[str, Any]:
        begun.append((run.peer, run.round))
        return {"wall_seconds": 1.0}

    monkeypatch.setattr(serve, "measure", measure)
    for _ in range(2):
        serve.run_missing(bench, list(bench.all_runs("later-turns")), {"plain-all": "no wheel"}, math.inf)
    assert begun == [("llama-server", 0), ("ours", 1), ("llama-server", 1)]
    assert (bench.result(serve.Run("later-turns", "plain-all", 0)) or {})["failed"] == "no wheel"
    assert bench.result(serve.Run("later-turns", "xllamacpp", 1)) is None


def test_none_is_begun_that_would_hardly_end(
    bench: serve.Bench, keep: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    keep("later-turns", "ours", 0, wall_seconds=100.0)
    serve.run_missing(bench, list(bench.all_runs("later-turns")), {}, time.monotonic() + 90)
    assert "not begun, for lack of time: 7 runs" in capsys.readouterr().out


def test_code_that_changes_meanwhile_ends_it(
    bench: serve.Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "code", lambda: "another")
    serve.run_missing(bench, list(bench.all_runs("load")), {}, math.inf)
    assert "the code has changed" in capsys.readouterr().out


def test_another_machine_or_size_begins_anew_but_a_longer_load_only_itself(bench: serve.Bench) -> None:
    assert replace(bench, setup={**SETUP, "threads": 4}).runs != bench.runs
    assert replace(bench, sizes=replace(SIZES, prompt=61)).runs != bench.runs
    longer = replace(bench, sizes=replace(SIZES, minutes=10))
    assert longer.runs == bench.runs
    load, turns = serve.Run("load", "ours", 0), serve.Run("later-turns", "ours", 0)
    assert longer.file(load) != bench.file(load)
    assert longer.file(turns) == bench.file(turns)


# how it is judged


@pytest.mark.parametrize(
    ("scenario", "figure", "ours", "peer", "ratio", "met"),
    [
        ("one-user", "decode, tokens/s", [9.6, 9.7, 20.0], [10.0, 10.0, 10.0], 0.97, True),
        ("one-user", "decode, tokens/s", [9.6], [10.0], 0.96, False),
        ("one-user", "first token, s", [1.1], [1.0], 1.1, True),
        ("one-user", "first token, s", [1.2], [1.0], 1.2, False),
        ("later-turns", "four in turn, turn 2: first token, s", [1.2], [1.0], 1.2, False),
        ("four-users", "all together, tokens/s", [10.0], [10.0], 1.0, True),
        ("four-users", "slowest first token, s", [10.1], [10.0], 1.01, False),
        ("four-users", "slowest first token, s", [5.0, 9.0, 20.0], [10.0, 10.0, 10.0], 0.9, True),
        ("four-users", "slowest first token, s", [20.0, 9.0, 11.0], [20.0, 10.0, 10.0], 1.0, True),  # medians: 1.1
    ],
)
def test_a_goal_is_a_ratio_to_a_peer(
    scenario: str, figure: str, ours: list[float], peer: list[float], ratio: float, met: bool
) -> None:
    goal = serve_table.goal_of(scenario, figure)
    assert goal is not None
    assert goal.peer is not None
    runs = {name: {"figures": {figure: {"samples": s}}} for name, s in (("ours", ours), (goal.peer, peer))}
    found = serve_table.verdict(scenario, figure, runs)
    assert found["ratio"] == pytest.approx(ratio)
    assert found["met"] is met


def test_a_goal_without_its_peer_is_unknown() -> None:
    figure = "decode, tokens/s"
    ours = {"figures": {figure: {"samples": [9.0]}}}
    assert serve_table.verdict("one-user", figure, {"ours": ours, "llama-bench": {"failed": "no"}})["met"] is None
    assert serve_table.verdict("one-user", figure, {"llama-bench": ours})["met"] is None
    assert serve_table.goal_of("later-turns", "alone, turn 1: first token, s") is None
    assert serve_table.verdict("load", "errors", {"ours": {"figures": {"errors": {"samples": [0]}}}})["met"] is True
    assert serve_table.verdict("load", "errors", {"ours": {"figures": {"errors": {"samples": [2]}}}})["met"] is False


def test_rounds_are_one_or_the_first_failure() -> None:
    rounds = [figures(speed=[1.0, 2.0]), figures(speed=[6.0])]
    assert serve_table.value(serve_table.merged(rounds), "speed") == 2.0
    assert serve_table.merged([*rounds, {"failed": "it crashed"}]) == {"failed": "it crashed"}
    assert serve_table.merged([]) == {}


def test_the_table_has_every_figure_and_failure(bench: serve.Bench, keep: Callable[..., None]) -> None:
    first = {"samples": [0.5], "prompt": 143, "cached": 64}
    for number in range(2):
        told = {"decode, tokens/s": {"samples": [12.0 + number]}, "first token, s": first}
        keep("one-user", "ours", number, figures=told, kernels="AVX2", others_share=0.1)
    keep("one-user", "llama-bench", 0, figures={"decode, tokens/s": {"samples": [12.5]}}, kernels="AVX2")
    keep("one-user", "xllamacpp", 0, failed="the server ended with status -4")
    report = serve.collect(bench)
    text = serve_table.table(report)
    rows = {tuple(line.split(" | ")[:2]): line for line in text.splitlines() if line.startswith("| ")}
    decode = rows["| one-user", "decode, tokens/s"]
    assert decode == (
        "| one-user | decode, tokens/s | 12.5 | 12.5 | not yet | failed | not yet | not yet"
        " | ≥ 0.97 x llama-bench | 0.960 | **no** |"
    )
    known = rows["| one-user", "first token, s (143 tokens of prompt)"]
    assert "| 0.5 | - | not yet | failed |" in known
    assert known.endswith("| ≤ 1.1 x llama-server | - | unknown |")
    assert "| load", "-" in rows
    assert "- failed: xllamacpp, one-user: the server ended with status -4" in text
    assert "Built for AVX2: llama-bench, ours." in text
    assert "Other processes took 10% of the CPUs" in text
    assert report["verdicts"]["one-user"]["decode, tokens/s"]["met"] is False


# all of it, on a tiny model


def test_ours_and_plain_llama_are_measured(bench: serve.Bench, model: Path) -> None:
    serve.write_inputs(bench, dict.fromkeys(["one-user"], model))
    for peer in ("ours", "plain-all"):
        told = serve.measure(bench, serve.Run("one-user", peer, 0))
        assert "failed" not in told
        assert told["kernels"]
        assert all(rate > 0 for rate in told["figures"]["decode, tokens/s"]["samples"])
        assert len(told["figures"]["first token, s"]["samples"]) == SIZES.repeats
    assert serve.measure(bench, serve.Run("one-user", "ours", 1))["figures"]["first token, s"]["prompt"] > SIZES.prompt


def test_a_peer_that_cannot_begin_has_failed(bench: serve.Bench, model: Path) -> None:
    serve.write_inputs(bench, {"one-user": model})
    assert "FileNotFoundError" in serve.measure(bench, serve.Run("one-user", "xllamacpp", 0))["failed"]


def test_peers_that_cannot_be_made_are_named_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(folder: Path) -> None:
        serve.call([sys.executable, "-c", "raise ValueError('no wheel')"], folder / "log")

    monkeypatch.setattr(serve, "build_llama_cpp", make)
    monkeypatch.setattr(serve, "install_xllamacpp", make)
    broken = serve.make_peers(tmp_path, {"ours", "xllamacpp"})
    assert list(broken) == ["xllamacpp"]
    assert broken["xllamacpp"].startswith("ValueError: no wheel; ")


def test_conversations_waves_and_load_on_our_engine(bench: serve.Bench, model: Path) -> None:
    serve.write_inputs(bench, dict.fromkeys(["later-turns", "four-users"], model))
    asked = [json.loads(bench.inputs(scenario).read_text()) for scenario in ("later-turns", "four-users")]
    words = [[{"role": "user", "content": word}] for word in ("tune", "note", "song")]
    load = {"chats": words, "clients": 6, "seconds": 1.0, "answer": 8}
    with serve_peers.ours(asked[0]) as served:
        turns, wave = serve_peers.later_turns(served, asked[0]), serve_peers.four_users(served, asked[1])
        loaded = serve_peers.load(served, load)
    last = turns["four in turn, turn 3: first token, s"]
    assert len(last["samples"]) == 4
    assert last["prompt"] > last["cached"] > SIZES.system
    assert len(wave["all together, tokens/s"]["samples"]) == SIZES.repeats
    assert loaded["errors"] == {"samples": [0], "first": []}
    assert loaded["the same as alone, share"]["samples"] == [1.0]
    assert loaded["tokens/s"]["samples"][0] > 0


def test_differences_and_refusals_under_load_are_counted() -> None:
    asked = threading.Lock()
    number = 0

    def chat(_: Any, __: int) -> Answer:
        nonlocal number
        with asked:
            number += 1
            if number == 2:
                raise serve_peers.Refused
            if number == 3:
                raise ValueError("broken")
        time.sleep(0.01)
        return Answer(time.perf_counter(), ["a", "b" if number == 1 else "c"], [0.0, 0.01], [1, 2])

    inputs = {"chats": [[]], "clients": 1, "seconds": 1.0, "answer": 2}
    found = serve_peers.load(serve_peers.Served(chat, 1, ""), inputs)
    assert found["errors"] == {"samples": [1], "first": ["ValueError: broken"]}
    assert found["turned away, queue full"]["samples"] == [1]
    assert found["the same as alone, share"]["samples"] == [0.0]
    assert found["first token that differs, median"]["places"][0] == 1
