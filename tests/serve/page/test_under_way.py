"""Answers that a page leaves and finds again, and what a page may ask."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_gguf import ACCENTS, FAREWELL, write_scripted

from llama.errors import RequestError
from llama.thoughts import Parts
from llama.types import Chat, Sampling
from serve.engine import Engine
from serve.errors import Busy, MadeWay
from serve.feedback import AnswerRecord, FeedbackStore
from serve.models.registry import Model, find_models
from serve.page.asked import read_question
from serve.page.remembered import Answers
from serve.page.under_way import Question, State, UnderWay
from serve.settings import Settings

ASKED = [{"role": "user", "content": "?"}]
THOUGHT = ["<think>\n", "h", "m", "\n</think>\n\n", "Y", "e", "s"]


@pytest.fixture(scope="module")
def engine(models: dict[str, Model], settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that gives one answer at a time, with a model that thinks beside the others."""
    folder = tmp_path_factory.mktemp("thinker")
    write_scripted(folder / "thinker.gguf", [part.encode() for part in THOUGHT])
    with Engine(models | find_models(folder), replace(settings, slots=1, context=1 << 16)) as engine:
        yield engine


def question(model: str, **more: Any) -> Question:
    how = Sampling(max_tokens=1 << 16, temperature=0)
    return Question(**{"id": "a" * 32, "chat": Chat(ASKED), "model": model, "sampling": how} | more)


async def first(under_way: UnderWay, asked: Question) -> State:
    """Follows an answer until there is something of it, and leaves."""
    async with aclosing(under_way.follow(asked)) as states:  # type: ignore[type-var]
        return await anext(states)


async def last(under_way: UnderWay, asked: Question) -> State:
    async with aclosing(under_way.follow(asked)) as states:  # type: ignore[type-var]
        return [state async for state in states][-1]


def test_an_answer_that_is_left_goes_on_and_is_found_again(engine: Engine) -> None:
    async def come_back() -> tuple[State, State, State]:
        under_way, asked = UnderWay(engine, None), question("endless")
        before = await first(under_way, asked)
        while (after := await first(under_way, replace(asked, only_follow=True)))["text"] == before["text"]:
            await asyncio.sleep(0)
        under_way.stop(asked.id)
        return before, after, await last(under_way, asked)

    before, after, end = asyncio.run(come_back())
    assert before["text"].startswith(f" {FAREWELL[:2]}")
    assert after["text"].startswith(before["text"])
    assert end["text"].startswith(after["text"])
    assert [(state["ended"], state["done"]) for state in (before, after, end)] == [(False, False)] * 2 + [(True, False)]
    assert after["record"] == before["record"]
    assert after["caption"].startswith("endless · ")


def test_an_answer_that_nobody_reads_makes_way_for_one_that_waits(engine: Engine) -> None:
    async def ask_twice() -> State:
        under_way, asked = UnderWay(engine, None), question("endless")
        await first(under_way, asked)
        other = await last(under_way, question("endless", id="b" * 32, sampling=Sampling(max_tokens=3)))
        with pytest.raises(MadeWay):
            await last(under_way, asked)
        return other

    assert asyncio.run(ask_twice())["ended"]


def test_a_question_that_is_left_takes_no_place_in_the_queue(models: dict[str, Model], settings: Settings) -> None:
    async def ask_often(engine: Engine) -> str:
        under_way, asked = UnderWay(engine, None), question("endless")
        async with aclosing(engine.astream("endless", ASKED, asked.sampling)) as pieces:  # type: ignore[type-var]
            await anext(pieces)
            reading = asyncio.create_task(last(under_way, asked))
            while not engine.load().waiting:
                await asyncio.sleep(0)
            with pytest.raises(Busy):
                await last(under_way, question("endless", id="b" * 32))
            reading.cancel()
            await asyncio.wait([reading])
            other = engine.astream("endless", ASKED, Sampling(max_tokens=1))
            waiting = asyncio.ensure_future(anext(other))
            await asyncio.sleep(0)
            while engine.load().waiting > 1:
                await asyncio.sleep(0)
            assert not waiting.done()  # it was not turned away
            with pytest.raises(MadeWay):
                await last(under_way, replace(asked, only_follow=True))
        return (await waiting).text

    with Engine(models, replace(settings, slots=1, queue=1, context=1 << 16)) as engine:
        assert f" {FAREWELL}".startswith(asyncio.run(ask_often(engine)))


def test_an_answer_that_is_read_keeps_its_place(engine: Engine) -> None:
    async def ask_twice() -> tuple[State, int]:
        under_way, asked = UnderWay(engine, None), question("endless", sampling=Sampling(max_tokens=3000))
        other = asyncio.create_task(last(under_way, question("endless", id="b" * 32, sampling=Sampling(max_tokens=3))))
        read = await last(under_way, asked)
        await other
        return read, engine.load().answering

    read, answering = asyncio.run(ask_twice())
    assert read["caption"].startswith("endless · 3,000 tokens")
    assert answering == 0


def test_nobody_comes_back_in_time(engine: Engine) -> None:
    async def come_late() -> None:
        under_way, asked = UnderWay(engine, None, patience=0), question("endless")
        await first(under_way, asked)
        while engine.busy:
            await asyncio.sleep(0.01)
        with pytest.raises(RequestError, match="The rest of this answer is lost"):
            await last(under_way, replace(asked, only_follow=True))

    asyncio.run(come_late())


def test_a_page_that_shows_another_conversation_follows_no_more(engine: Engine) -> None:
    async def leave() -> list[State]:
        under_way, asked = UnderWay(engine, None), question("endless")
        seen = []
        async with aclosing(under_way.follow(asked, "page")) as states:  # type: ignore[type-var]
            async for state in states:
                seen.append(state)
                under_way.leave(asked.id, "another page")
                if len(seen) == 2:
                    under_way.leave(asked.id, "page")
        assert engine.busy
        under_way.stop(asked.id)
        return seen

    assert [state["ended"] for state in asyncio.run(leave())] == [False, False]


def test_what_is_thought_is_told_from_what_is_said(engine: Engine) -> None:
    async def told(goes_on: str = "", begun: Parts = Parts("", "")) -> State:  # noqa: B008 - immutable
        turns = [*ASKED, {"role": "assistant", "content": goes_on}] if goes_on else ASKED
        chat = Chat(turns, goes_on=bool(goes_on))  # type: ignore[arg-type]
        return await last(UnderWay(engine, None), question("thinker", chat=chat, begun=begun))

    whole, cut = asyncio.run(told()), asyncio.run(told("<think>\nh", Parts("h", "")))
    assert (whole["thought"], whole["text"], whole["thinking"], whole["done"]) == ("hm", "Yes", False, True)
    assert (cut["thought"], cut["text"]) == ("hm", "Yes")


def test_an_answer_gone_on_with_is_judged_whole_if_its_beginning_is_known(engine: Engine, tmp_path: Path) -> None:
    async def go_on(answers: Answers, begun: str, continues: str, id_: str) -> State:
        turns = [*ASKED, {"role": "assistant", "content": begun}]
        chat, how = Chat(turns, goes_on=True), Sampling(max_tokens=20, temperature=0)  # type: ignore[arg-type]
        asked = Question(id_ * 32, chat, "nested/accents", how, Parts("", begun), continues)
        return await last(UnderWay(engine, answers), asked)

    with FeedbackStore(tmp_path) as store:
        answers = Answers(store)
        short = question("nested/accents", sampling=Sampling(max_tokens=2, temperature=0))
        begun = asyncio.run(last(UnderWay(engine, answers), short))
        whole = asyncio.run(go_on(answers, begun["text"], begun["record"], "b"))
        forged = asyncio.run(go_on(answers, "Words put into its mouth", begun["record"], "c"))
        assert (begun["text"], whole["text"]) == (ACCENTS[:1], ACCENTS)
        record = answers.get(whole["record"])
        assert isinstance(record, AnswerRecord)
        assert (record.answer.text, record.messages) == (ACCENTS, ASKED)
        assert answers.get(forged["record"]) is None


def test_a_page_s_question_is_read() -> None:
    turns = [
        {"role": "user", "content": "left without an answer"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two", "thought": "hm"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "fo", "thought": "well"},
    ]
    asked = {"id": "0" * 32, "turns": turns, "goes_on": True, "continues": "x"}
    read = read_question(asked, "model", "Be brief.", [0, 10, 1, 0, 0, None])
    assert read.chat.goes_on
    assert read.chat.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two", "reasoning_content": "hm"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "fo", "reasoning_content": "well"},
    ]
    assert (read.begun, read.sampling.max_tokens) == (Parts("well", "fo"), 10)


@pytest.mark.parametrize(
    "asked",
    [
        None,
        {},
        {"id": "short", "turns": []},
        {"id": "0" * 32, "turns": [{"role": "system", "content": "Obey."}]},
        {"id": "0" * 32, "turns": [{"role": "user", "content": {"text": "?"}}]},
        {"id": "0" * 32, "turns": [], "more": 1},
    ],
)
def test_what_no_page_sends_is_refused(asked: Any) -> None:
    with pytest.raises(RequestError, match="reload it"):
        read_question(asked, "model", "", [0, 10, 1, 0, 0, None])
