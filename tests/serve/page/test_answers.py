"""What the page remembers of answers, and what it shows where there is one model or no feedback."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from common.files import sha256
from llama.errors import RequestError
from serve.engine import Engine
from serve.feedback import CONSENT, Answer, AnswerRecord, FeedbackStore, ModelVersion, Visit, read_records
from serve.merging import merged
from serve.models.registry import Model
from serve.page import build_page
from serve.page.chat import EXAMPLES, examples
from serve.page.remembered import Answers
from serve.page.visits import read_visit
from serve.settings import Settings

VISIT = Visit("somebody", "talk", CONSENT)


def record(text: str) -> AnswerRecord:
    return AnswerRecord(
        messages=[{"role": "user", "content": "?"}], sampling={}, answer=Answer(text, ModelVersion("random"))
    )


def test_what_is_kept_names_the_file_that_answered(tmp_path: Path, models: dict[str, Model]) -> None:
    with FeedbackStore(tmp_path) as store:
        answers, said = Answers(store), record("yes")
        answers.remember(said, models["random"])
        answers.judge(said.id, VISIT, verdict="good")
        answers.judge(said.id, replace(VISIT, conversation=""), comment="indeed")
        with pytest.raises(RequestError, match="Somebody else has judged this answer"):
            answers.judge(said.id, replace(VISIT, visitor="another"), verdict="bad")
    (kept,) = read_records(tmp_path).records
    assert isinstance(kept, AnswerRecord)
    assert (kept.id, kept.verdict, kept.comment) == (said.id, "good", "indeed")
    random = models["random"]
    assert random.digest == sha256(random.path)
    assert kept.answer.model == ModelVersion(
        "random", random.revision, random.quantization, "random.gguf", random.digest
    )
    assert kept.visit == VISIT


def test_what_is_deleted_is_not_kept_with_the_next_judgement(tmp_path: Path, models: dict[str, Model]) -> None:
    with FeedbackStore(tmp_path) as store:
        answers, said = Answers(store), record("yes")
        answers.remember(said, models["random"])
        answers.judge(said.id, VISIT, verdict="good", comment="my address", edited="no")
        assert answers.forget("another") == set()
        assert answers.forget(VISIT.visitor) == {said.id}
        assert answers.of_visitor(VISIT.visitor) == []
        again = answers.judge(said.id, replace(VISIT, visitor="another"), verdict="bad")
    assert isinstance(again, AnswerRecord)
    assert (again.comment, again.edited) == ("", None)
    assert read_records(tmp_path).records == [again]


@pytest.mark.parametrize(
    ("told", "error"),
    [
        (None, "before the page has asked you"),
        ({"visitor": "me", "consent": CONSENT.version}, "before the page has asked you"),
        ({"visitor": "0" * 32, "conversation": "../x", "consent": CONSENT.version}, "before the page has asked you"),
        ({"visitor": "0" * 32, "consent": CONSENT.version + 1}, "has changed since you were asked"),
    ],
)
def test_a_judgement_without_consent_is_refused(told: object, error: str) -> None:
    with pytest.raises(RequestError, match=error):
        read_visit(told)


def test_a_visitor_is_known_by_a_digest_and_other_words_have_another_version() -> None:
    visit = read_visit({"visitor": "0" * 32, "conversation": "talk", "consent": CONSENT.version})
    assert visit == Visit("84e0c0eafaa95a34c293f278ac52e45c", "talk", CONSENT)
    words = hashlib.sha256(f"{CONSENT.kept}|{CONSENT.purpose}".encode()).hexdigest()[:8]
    assert {CONSENT.version: words} == {1: "73b378e9"}  # whoever changes the words gives them another version


def test_the_longest_unused_answers_are_forgotten(tmp_path: Path, models: dict[str, Model]) -> None:
    with FeedbackStore(tmp_path) as store:
        answers = Answers(store, room=100)
        first, second, third = record("x" * 40), record("y" * 40), record("z" * 40)
        answers.remember(first, models["random"])
        for length in range(40):  # what is remembered again counts once
            answers.remember(record_of(second, "y" * length), models["random"])
        assert answers.get(first.id)
        answers.remember(third, models["random"])
        assert answers.get(first.id) is None
        assert answers.get(second.id)
        assert answers.get(third.id)
        with pytest.raises(RequestError, match="does not know this answer, or not yet all of it"):
            answers.judge(first.id, VISIT, verdict="good")
    assert not list(tmp_path.iterdir())


def record_of(before: AnswerRecord, text: str) -> AnswerRecord:
    return AnswerRecord(id=before.id, messages=before.messages, sampling={}, answer=Answer(text, before.answer.model))


def test_two_answers_come_as_they_are_drawn_and_one_that_is_refused_ends_alone() -> None:
    turn = asyncio.Event()

    async def slow() -> AsyncIterator[str]:
        yield "a"
        await turn.wait()
        yield "b"

    async def refused() -> AsyncIterator[str]:
        yield "c"
        turn.set()
        raise RequestError("too many wait")

    async def drawn() -> list[tuple[int, str]]:
        async with aclosing(merged([slow(), refused()])) as states:  # type: ignore[type-var]
            return [(place, str(state)) async for place, state in states]

    assert asyncio.run(drawn()) == [(0, "a"), (1, "c"), (1, "too many wait"), (0, "b")]


def test_whoever_leaves_ends_both_answers() -> None:
    ended = []

    async def endless(name: str) -> AsyncIterator[str]:
        try:
            while True:
                yield name
                await asyncio.sleep(0)
        finally:
            ended.append(name)

    async def leave() -> None:
        async with aclosing(merged([endless("a"), endless("b")])) as states:  # type: ignore[type-var]
            await anext(states)
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert sorted(ended) == ["a", "b"]


def test_one_model_has_no_match_and_no_feedback_no_thumbs(models: dict[str, Model], settings: Settings) -> None:
    with Engine({"random": models["random"]}, settings) as engine:
        page = build_page(engine, settings).get_config_file()
    texts = [str(component["props"].get("value")) for component in page["components"]]
    assert any("a comparison takes two" in text for text in texts)
    events = {event for dependency in page["dependencies"] for _, event in dependency["targets"]}
    assert "retry" in events
    assert "like" not in events


def test_examples_are_the_first_short_prompts() -> None:
    assert examples(["long " * 20, "a", "b", "c", "d", "e"]) == ["a", "b", "c", "d"]
    assert examples(["long " * 20]) == list(EXAMPLES)
