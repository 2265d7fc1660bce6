from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import pytest
from tiny_gguf import BOS, write_random

from llama.errors import RequestError
from llama.model import LlamaModel
from llama.types import Message


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_random(folder / "random.gguf", seed=0)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[LlamaModel]:
    with LlamaModel(folder / "random.gguf", context=4096, threads=1) as model:
        yield model


def test_the_prompt_starts_with_one_bos_though_template_and_vocabulary_both_ask_for_one(model: LlamaModel) -> None:
    tokens = model.prompt([{"role": "user", "content": "hi"}])
    assert tokens[0] == BOS
    assert tokens.count(BOS) == 1


def test_the_template_is_rendered_token_by_token_without_the_marks_of_training(model: LlamaModel) -> None:
    begin, _, start, end, eot = range(256, 261)

    def turn(role: str, *content: int) -> list[int]:
        return [start, *role.encode(), end, *b"\n\n", *content]

    messages: list[Message] = [
        {"role": "system", "content": "be"},
        {"role": "user", "content": "hé"},
        {"role": "assistant", "content": "{% generation %}"},
        {"role": "user", "content": "ho"},
    ]
    assert model.prompt(messages) == [
        begin,
        *turn("system", *b"be", eot),
        *turn("user", *"hé".encode(), eot),
        *turn("assistant", *b"{% generation %}", eot),
        *turn("user", *b"ho", eot),
        *turn("assistant"),
    ]


def test_the_context_is_capped_by_the_model_and_a_longer_prompt_refused_with_both_figures(model: LlamaModel) -> None:
    assert model.context == 512
    messages: list[Message] = [{"role": "user", "content": "x" * 600}]
    with pytest.raises(RequestError, match=r"takes 6\d\d tokens, and this model's maximum context length is 512"):
        model.prompt(messages)


def test_text_that_is_no_unicode_is_taken_without_a_crash(model: LlamaModel) -> None:
    assert model.prompt([{"role": "user", "content": "\ud800\0"}]).count(0) == 1


def test_a_model_without_a_chat_template_goes_on_with_texts_alone(tmp_path: Path) -> None:
    path = write_random(tmp_path / "base.gguf", template=None)
    with LlamaModel(path, context=512, threads=1) as model:
        assert model.prompt("hi") == [BOS, *b"hi"]
        with pytest.raises(RequestError, match=r"^This model has no chat template, so it cannot chat: ask another one"):
            model.prompt([{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ raise_exception('no system prompt') }}", "refuses this conversation: no system prompt"),
        ("{{ messages[0]['content'] + none }}", "chat template fails: TypeError: can only concatenate str"),
        ("{{ '' }}", "The prompt is empty"),
    ],
)
def test_a_template_that_refuses_or_fails_is_the_users_to_hear(tmp_path: Path, template: str, text: str) -> None:
    path = write_random(tmp_path / "strict.gguf", template=template)
    with LlamaModel(path, context=512, threads=1) as model, pytest.raises(RequestError, match=text):
        model.prompt([{"role": "user", "content": "hi"}])


def test_a_template_that_writes_the_date_gets_todays_or_the_one_that_is_given(tmp_path: Path) -> None:
    path = write_random(tmp_path / "dated.gguf", template="{{ strftime_now('%Y-%m-%d') }}")
    hi: list[Message] = [{"role": "user", "content": "hi"}]
    before = date.today().isoformat()
    with LlamaModel(path, context=512, threads=1) as model:
        assert bytes(model.prompt(hi)).decode() in (before, date.today().isoformat())
    with LlamaModel(path, context=512, threads=1, today=datetime(2024, 7, 26)) as model:
        assert bytes(model.prompt(hi)) == b"2024-07-26"


def test_weights_are_in_memory_once(folder: Path, model: LlamaModel) -> None:
    assert model.vocabulary  # it is loaded
    assert str(folder) not in Path("/proc/self/maps").read_text(encoding="utf-8")
