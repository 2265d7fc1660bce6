import asyncio
import re
import threading
from dataclasses import replace
from itertools import islice, zip_longest
from pathlib import Path

import pytest
from servers import wait_until
from tiny_gguf import ACCENTS, FAREWELL, write_random

from common.errors import UserError
from llama.errors import EngineError, ModelError, RequestError
from llama.model import Entry
from llama.step_costs import Costs
from llama.turn import Piece, Turn
from llama.types import Message, Sampling
from serve.engine import Engine, Load
from serve.errors import Busy
from serve.http.metrics import Metrics
from serve.models.registry import Model, find_models
from serve.settings import Settings

GREEDY = Sampling(max_tokens=40, temperature=0)
SEEDED = Sampling(max_tokens=40, temperature=1.0, seed=7)
FOR_EVER = Sampling(max_tokens=1 << 17, temperature=0)


def ask(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_an_answer_comes_in_pieces_and_says_how_it_ended(engine: Engine) -> None:
    pieces = list(engine.stream("nested/accents", ask("hi"), GREEDY))
    assert text(pieces) == ACCENTS
    assert [piece.tokens for piece in pieces] == [*range(1, 10), 9]  # a token for each byte, then the closing piece
    assert [piece.finish for piece in pieces] == [None] * 9 + ["stop"]


def test_an_answer_ends_at_max_tokens(engine: Engine) -> None:
    *_, last = engine.stream("endless", ask("hi"), Sampling(max_tokens=12, temperature=0))
    assert (last.tokens, last.finish) == (12, "length")


def test_an_answer_ends_where_the_context_is_full(models: dict[str, Model], folder: Path) -> None:
    settings = Settings(models=folder, model="endless", context=64)
    with Engine(models, settings) as engine:
        *_, last = engine.stream("endless", ask("hi"), Sampling(max_tokens=1000, temperature=0))
    prompt = len("user" + "\n\n" + "hi" + "assistant" + "\n\n") + 6
    assert (last.tokens, last.finish) == (64 - prompt, "length")


def test_a_character_split_over_tokens_is_never_cut(engine: Engine) -> None:
    texts = [piece.text for piece in engine.stream("nested/accents", ask("hi"), GREEDY)]
    assert [part for part in texts if part] == list(ACCENTS)


def test_bytes_that_make_no_character_are_dropped(engine: Engine) -> None:
    for seed in range(20):
        answer = text(list(engine.stream("random", ask("hi"), Sampling(40, 2.0, seed))))
        assert "\ufffd" not in answer


def test_greedy_and_seeded_answers_repeat_and_others_vary(engine: Engine) -> None:
    def draw(sampling: Sampling) -> str:
        return text(list(engine.stream("random", ask("hi"), sampling)))

    assert draw(GREEDY) == draw(GREEDY)
    assert draw(SEEDED) == draw(SEEDED)
    assert len({draw(Sampling(max_tokens=40, temperature=1.0)) for _ in range(5)}) > 1


def test_users_interleaved_get_what_each_gets_alone_on_models_that_take_turns(engine: Engine) -> None:
    questions = [
        (model, ask(question), sampling)
        for model in ("random", "other")
        for question in ("one", "another " * 20)
        for sampling in (GREEDY, SEEDED)
    ]
    alone = [list(engine.stream(*question)) for question in questions]
    assert len({text(pieces) for pieces in alone}) == len(questions)

    streams = [engine.stream(*question) for question in questions]
    together = [[piece for piece in column if piece] for column in zip(*zip_longest(*streams), strict=True)]
    assert [text(pieces) for pieces in together] == [text(pieces) for pieces in alone]


def test_users_in_threads_get_what_each_gets_alone(engine: Engine) -> None:
    alone = {question: text(list(engine.stream("random", ask(question), GREEDY))) for question in "abcdefgh"}
    together: dict[str, str] = {}

    def chat(question: str) -> None:
        together[question] = text(list(engine.stream("random", ask(question), GREEDY)))

    threads = [threading.Thread(target=chat, args=question) for question in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_a_reader_who_leaves_frees_the_engine_within_a_token(engine: Engine) -> None:
    leaving = engine.stream("endless", ask("hi"), FOR_EVER)
    assert text(list(islice(leaving, 8))) == f" {FAREWELL}"
    decoded = count_decodes(engine)
    leaving.close()  # type: ignore[attr-defined]
    before = decoded[0]
    assert text(list(engine.stream("nested/accents", ask("hi"), GREEDY))) == ACCENTS
    assert decoded[0] - before <= 1


def count_decodes(engine: Engine) -> list[int]:
    """A count, kept up to date, of the steps of the model that is loaded now."""
    (batch,) = engine._loaded.by_name.values()
    decode, count = batch.model.decode, [0]

    def counted(entries: list[Entry]) -> None:
        count[0] += 1
        decode(entries)

    batch.model.decode = counted  # type: ignore[method-assign, assignment]
    return count


def test_one_who_gives_up_waiting_costs_nothing(engine: Engine) -> None:
    async def main() -> list[Piece]:
        running = engine.astream("endless", ask("hi"), FOR_EVER)
        await anext(running)
        waiting = asyncio.ensure_future(anext(engine.astream("endless", ask("hi"), FOR_EVER)))
        await asyncio.sleep(0)
        waiting.cancel()
        await running.aclose()  # type: ignore[attr-defined]
        return [piece async for piece in engine.astream("nested/accents", ask("hi"), GREEDY)]

    assert text(asyncio.run(main())) == ACCENTS


def test_a_task_that_is_cancelled_frees_the_engine(engine: Engine) -> None:
    async def read_for_ever() -> None:
        async for _ in engine.astream("endless", ask("hi"), FOR_EVER):
            pass

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read_for_ever(), 0.3)

    asyncio.run(main())
    assert text(list(engine.stream("nested/accents", ask("hi"), GREEDY))) == ACCENTS


def test_a_refused_request_leaves_the_engine_at_work(engine: Engine) -> None:
    with pytest.raises(RequestError, match=r"takes \d+ tokens, and this model's maximum context length is 512"):
        list(engine.stream("random", ask("x" * 600), GREEDY))
    with pytest.raises(RequestError, match="max tokens must be"):
        list(engine.stream("random", ask("hi"), Sampling(max_tokens=1 << 18)))
    assert text(list(engine.stream("nested/accents", ask("hi"), GREEDY))) == ACCENTS


def test_no_more_models_are_kept_than_set_and_the_longest_unused_goes_first(
    models: dict[str, Model], folder: Path
) -> None:
    with Engine(models, Settings(models=folder, model="random", max_loaded_models=2)) as engine:
        for name in ("other", "random", "endless"):
            next(engine.stream(name, ask("hi"), GREEDY))
        assert list(engine._loaded.by_name) == ["random", "endless"]


def test_the_smallest_model_is_picked_unless_one_is_named(tmp_path: Path) -> None:
    write_random(tmp_path / "large.gguf", width=128)
    write_random(tmp_path / "small.gguf", width=64)
    models = find_models(tmp_path)
    with Engine(models, Settings(models=tmp_path)) as engine:
        assert engine.default == "small"
        assert list(engine._loaded.by_name) == ["small"]
    with Engine(models, Settings(models=tmp_path, model="large")) as engine:
        assert engine.default == "large"


def test_of_models_that_chat_the_smallest_that_can_be_loaded_is_picked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_random(tmp_path / "base.gguf", template=None)
    for name, width in {"small": 64, "middle": 96, "large": 128}.items():
        write_random(tmp_path / f"{name}.gguf", width=width)
    models = find_models(tmp_path)
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    with Engine(models, Settings(models=tmp_path)) as engine:
        assert engine.default == "middle"
        assert list(engine.models) == ["base", "large", "middle"]
        (line,) = caplog.messages
        assert line.startswith(f"left out: {tmp_path}/small.gguf (4 bytes) is no whole GGUF model")
    with pytest.raises(UserError, match=r"small\.gguf \(4 bytes\) is no whole GGUF model"):
        Engine(models, Settings(models=tmp_path, model="small"))
    with pytest.raises(UserError, match=r"small\.gguf \(4 bytes\) is no whole GGUF model"):
        Engine({"small": models["small"]}, Settings(models=tmp_path))


def test_a_model_that_breaks_while_the_server_runs_is_the_users_to_hear(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_random(tmp_path / "good.gguf")
    write_random(tmp_path / "worse.gguf")
    with Engine(find_models(tmp_path), Settings(models=tmp_path)) as engine:
        (tmp_path / "worse.gguf").write_bytes(b"GGUF")
        with pytest.raises(ModelError, match=r"^The model worse cannot be loaded: the server's log says why\.$"):
            list(engine.stream("worse", ask("hi"), GREEDY))
        assert re.search(r"worse\.gguf .* is no whole GGUF model", caplog.text)
        assert list(engine.stream("good", ask("hi"), GREEDY))[-1].finish


@pytest.fixture
def runaway(folder: Path, tmp_path: Path) -> dict[str, Model]:
    """Beside `endless` a model whose template never ends, unless the question is "hi"."""
    loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    write_random(tmp_path / "loops.gguf", template="{% if messages[0].content != 'hi' %}" + loops + "{% endif %}hi")
    return find_models(f"{tmp_path},{folder}")


def test_a_template_without_end_holds_up_no_answer_of_another_model(runaway: dict[str, Model], folder: Path) -> None:
    settings = Settings(models=folder, model="endless", context=1 << 18, max_tokens=1 << 17, max_loaded_models=2)
    failures: list[Exception] = []

    def chat() -> None:
        try:
            list(engine.stream("loops", ask("for ever"), GREEDY))
        except RequestError as error:
            failures.append(error)

    with Engine(runaway, settings) as engine:
        list(engine.stream("loops", ask("hi"), GREEDY))
        endless = engine.stream("endless", ask("hi"), FOR_EVER)
        next(endless)
        threads = [threading.Thread(target=chat) for _ in "12"]
        for thread in threads:
            thread.start()
        wait_until(lambda: engine.load() == Load(answering=1, waiting=2))
        meanwhile = 0
        while len(failures) < len(threads):
            next(endless)
            meanwhile += 1
            if meanwhile == 20:  # others begin too
                assert text(list(engine.stream("endless", ask("hi"), Sampling(8, 0)))) == f" {FAREWELL}"
        assert meanwhile > 100
        assert [type(error) for error in failures] == [ModelError] * 2
        assert str(failures[0]) == "The model's chat template fails: it takes longer than 1 s"
        assert list(engine.stream("loops", ask("hi"), GREEDY))[-1].finish
        endless.close()  # type: ignore[attr-defined]


def test_one_who_leaves_before_the_prompt_is_read_is_not_begun(engine: Engine) -> None:
    turn = Turn("random", ask("hi"), GREEDY, lambda _: None)
    turn.cancelled.set()
    assert not engine._begin(turn)
    assert turn.reading
    turn.reading.result(20)
    assert not turn.prompt
    assert not engine._begin(turn)
    assert text(list(engine.stream("random", ask("hi"), GREEDY)))


def test_a_model_stays_while_its_template_is_at_work_and_makes_way_then(
    runaway: dict[str, Model], folder: Path
) -> None:
    async def main(engine: Engine) -> None:
        looping = [engine.astream("loops", ask("for ever"), GREEDY) for _ in "1234"]
        first, leaving, *others = (asyncio.ensure_future(anext(pieces)) for pieces in looping)
        other = asyncio.ensure_future(anext(engine.astream("endless", ask("hi"), GREEDY)))
        while engine.load() != Load(answering=0, waiting=5):
            await asyncio.sleep(0.01)
        leaving.cancel()
        with pytest.raises(ModelError):
            await first
        assert (await other).tokens == 1  # it waits for what is under way, and no longer
        assert list(engine._loaded.by_name) == ["endless"]
        assert not others[-1].done()
        for one in others:
            one.cancel()

    with Engine(runaway, Settings(models=folder, model="loops", max_loaded_models=1)) as engine:
        asyncio.run(asyncio.wait_for(main(engine), 60))


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (EngineError("llama_decode returned -3"), "EngineError: llama_decode returned -3"),
        (ValueError("hi"), "ValueError"),
    ],
    ids=["ours", "other"],
)
def test_a_failure_is_logged_with_its_place_and_no_word_of_the_conversation(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    logged: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("llama.model.LlamaModel.decode", fail)
    with pytest.raises(EngineError):
        list(engine.stream("random", ask("hi"), GREEDY))
    monkeypatch.undo()
    (said,) = caplog.messages
    first, *frames, last = said.splitlines()
    assert (first, last) == ("an answer of random failed", logged)
    assert any("batch.py" in frame and "in step" in frame for frame in frames)
    assert len(list(engine.stream("random", ask("hi"), GREEDY))) > 1


def test_beyond_the_queue_one_is_told_when_to_come_again(models: dict[str, Model], folder: Path) -> None:
    settings = Settings(models=folder, model="endless", context=1 << 18, max_tokens=1 << 17, slots=1, queue=1)
    with Engine(models, settings) as engine:
        streams = [engine.stream("endless", ask("hi"), FOR_EVER) for _ in range(2)]
        next(streams[0])
        waiting = threading.Thread(target=next, args=(streams[1],))
        waiting.start()
        wait_until(lambda: engine.load() == Load(answering=1, waiting=1))
        with pytest.raises(Busy, match=r"The queue is full \(1 wait\): try again in \d+ s") as raised:
            next(engine.stream("endless", ask("hi"), GREEDY))
        assert raised.value.seconds >= 1
        streams[0].close()  # type: ignore[attr-defined]
        waiting.join(20)
        assert not waiting.is_alive()


def test_whoever_leaves_the_queue_makes_room_in_it(models: dict[str, Model], folder: Path) -> None:
    settings = Settings(models=folder, model="endless", context=1 << 18, max_tokens=1 << 17, slots=1, queue=2)

    async def main(engine: Engine) -> None:
        running = engine.astream("endless", ask("hi"), FOR_EVER)
        await anext(running)
        _, last = waiting = [asyncio.ensure_future(anext(engine.astream("endless", ask("hi"), FOR_EVER))) for _ in "12"]
        while engine.load() != Load(answering=1, waiting=2):
            await asyncio.sleep(0.01)
        last.cancel()
        while engine.load() != Load(answering=1, waiting=1):
            await asyncio.sleep(0.01)
        waiting[0].cancel()
        await running.aclose()  # type: ignore[attr-defined]

    with Engine(models, settings) as engine:
        asyncio.run(asyncio.wait_for(main(engine), 20))


def test_answers_of_every_model_loaded_are_under_way_and_do_not_wait(models: dict[str, Model], folder: Path) -> None:
    both = {name: replace(models["endless"], name=name) for name in ("one", "two")}
    settings = Settings(models=folder, context=1 << 18, max_tokens=1 << 17, slots=1, queue=1, max_loaded_models=2)
    with Engine(both, settings) as engine:
        streams = [engine.stream(name, ask("hi"), FOR_EVER) for name in both]
        for stream in streams:
            next(stream)
        third = threading.Thread(target=lambda: list(engine.stream("one", ask("hi"), Sampling(max_tokens=1))))
        third.start()
        wait_until(lambda: engine.load() == Load(answering=2, waiting=1))
        with pytest.raises(Busy, match=r"The queue is full \(1 wait\)"):
            next(engine.stream("two", ask("hi"), GREEDY))
        for stream in streams:
            stream.close()  # type: ignore[attr-defined]
        third.join(20)
        assert not third.is_alive()


def test_a_step_that_fails_counts_out_those_who_left_in_it_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        leaving.close()  # type: ignore[attr-defined]
        monkeypatch.setattr("llama.model.LlamaModel.decode", fail_again)

    def fail_again(*_: object) -> None:
        raise EngineError("llama_decode returned -3")

    leaving, staying = (engine.stream("endless", ask(text), FOR_EVER) for text in ("one", "two"))
    next(leaving)
    next(staying)
    monkeypatch.setattr("llama.model.LlamaModel.decode", fail)
    with pytest.raises(EngineError):
        list(staying)
    wait_until(lambda: not engine.busy)


def test_a_model_waits_for_another_one_to_finish_its_answers(engine: Engine) -> None:
    endless = engine.stream("endless", ask("hi"), FOR_EVER)
    next(endless)
    answered: list[Piece] = []
    other = threading.Thread(target=lambda: answered.extend(engine.stream("nested/accents", ask("hi"), GREEDY)))
    other.start()
    wait_until(lambda: engine.load() == Load(answering=1, waiting=1))
    assert list(engine._loaded.by_name) == ["endless"]
    endless.close()  # type: ignore[attr-defined]
    other.join(20)
    assert text(answered) == ACCENTS


def test_an_answer_ends_before_a_stop_text_spread_over_tokens(engine: Engine) -> None:
    def until(*stop: str) -> tuple[str, str | None, int]:
        pieces = list(engine.stream("endless", ask("hi"), Sampling(max_tokens=12, temperature=0, stop=stop)))
        return text(pieces), pieces[-1].finish, pieces[-1].tokens

    assert until("thanks for") == (" So long, and ", "stop", 5)
    assert until("nothing of it", "and tha") == (" So long, ", "stop", 4)
    assert until("long, and nothing") == (f" {FAREWELL}" + " So long, and thanks", "length", 12)


def test_the_oldest_turns_are_dropped_where_that_is_set(models: dict[str, Model], folder: Path) -> None:
    turns: list[Message] = [{"role": "system", "content": "be brief"}]
    for i in range(8):
        turns += [{"role": "user", "content": f"{i} " * 30}, {"role": "assistant", "content": "yes " * 10}]
    turns.append({"role": "user", "content": "the last"})
    settings = Settings(models=folder, model="random", context=512, overflow="drop")
    with Engine(models, settings) as engine:
        *_, last = engine.stream("random", turns, GREEDY)
        (batch,) = engine._loaded.by_name.values()
        assert last.prompt == len(batch.model.prompt([turns[0], *turns[-5:]])) <= 0.75 * 512
        with pytest.raises(RequestError, match=r"takes \d+ tokens, and this model's maximum context length is 512"):
            list(engine.stream("random", ask("x" * 600), GREEDY))


def test_closing_ends_the_answer_under_way_and_those_that_wait(models: dict[str, Model], settings: Settings) -> None:
    engine = Engine(models, settings)
    ends: list[str] = []

    def chat() -> None:
        try:
            list(engine.stream("endless", ask("hi"), FOR_EVER))
        except RequestError as error:
            ends.append(str(error))

    threads = [threading.Thread(target=chat) for _ in range(settings.slots + 2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: engine.load() == Load(answering=settings.slots, waiting=2))
    engine.close()
    for thread in threads:
        thread.join(20)
    assert ends == ["The server is stopping."] * (settings.slots + 2)
    assert engine.load() == Load(answering=0, waiting=0)
    with pytest.raises(RequestError, match="stopping"):
        next(engine.stream("random", ask("hi"), GREEDY))


def test_drafted_tokens_change_no_answer_and_are_counted(
    models: dict[str, Model], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = Sampling(max_tokens=200, temperature=0)
    with Engine(models, Settings(models=folder, model="endless", speculation="off")) as engine:
        expected = list(engine.stream("endless", ask("hi"), long))
    assert expected[-1].drafted == 0
    metrics = Metrics()
    with Engine(models, Settings(models=folder, model="endless"), metrics.observe) as engine:
        (batch,) = engine._loaded.by_name.values()
        batch._speculation._costs = Costs({1: 1.0, 16: 1.0})  # whatever this machine takes, what is right pays
        monkeypatch.setattr(Costs, "learn", lambda *_: None)
        answer = list(engine.stream("endless", ask("hi"), long))
    assert [(piece.text, piece.tokens) for piece in answer] == [(piece.text, piece.tokens) for piece in expected]
    last, told = answer[-1], metrics.text().decode()
    assert 100 < last.accepted <= last.drafted
    assert f'tunesmith_drafted_tokens_total{{model="endless"}} {float(last.drafted)}' in told
    assert f'tunesmith_accepted_draft_tokens_total{{model="endless"}} {float(last.accepted)}' in told


def test_a_draft_model_is_one_of_those_served_and_of_the_same_vocabulary(
    models: dict[str, Model], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Engine(models, Settings(models=folder, draft="random", max_loaded_models=2)) as engine:
        assert engine.default == "other"
        first, second = (engine.stream(name, ask("hi"), GREEDY) for name in ("other", "endless"))
        assert [text(list(first)), text(list(second))] == [
            text(list(engine.stream(name, ask("hi"), GREEDY))) for name in ("other", "endless")
        ]
        drafting = {name: batch._speculation._draft_model for name, batch in engine._loaded.by_name.items()}
        assert drafting["endless"] is None
    with pytest.raises(UserError, match="SERVE_DRAFT=none is no model here: it may be endless, nested/accents, other"):
        Engine(models, Settings(models=folder, draft="none"))
    with pytest.raises(UserError, match="SERVE_DRAFT=endless can draft for no model here, its vocabulary is not"):
        Engine(models, Settings(models=folder, draft="endless"))
