"""A folder of adapters over one base, as the server has it."""

import threading
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import pytest
from loras import write_lora
from tiny_gguf import write_random

from llama.errors import ModelError
from llama.types import Message, Sampling
from pipeline.gguf.quantize import quantize
from serve.engine import Engine
from serve.models.registry import find_models
from serve.page.compare import answer_at_once
from serve.settings import Settings

GREEDY = Sampling(max_tokens=24, temperature=0)
NAMES = ("base", "one", "two", "small", "late")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in Q8_0, four adapters, and another model."""
    folder = tmp_path_factory.mktemp("adapters")
    quantize(write_random(folder / "unquantized", width=256), folder / "base.gguf", "Q8_0")
    write_random(folder / "other.gguf")
    for seed, (name, rank) in enumerate((("one", 16), ("two", 16), ("small", 8), ("late", 16))):
        write_lora(folder / f"{name}.gguf", folder / "base.gguf", seed, rank=rank)
    return folder


def ask(engine: Engine, name: str, text: str) -> str:
    question: list[Message] = [{"role": "user", "content": text}]
    return "".join(piece.text for piece in engine.stream(name, question, GREEDY))


def test_users_of_all_adapters_at_once_get_what_each_gets_alone(folder: Path) -> None:
    models, settings = find_models(folder), Settings(models=str(folder), model="base", context=512)
    asked = list(product(NAMES, ("hi", "tell me " * 12)))
    with Engine(models, settings) as engine:
        alone = [ask(engine, *question) for question in asked]
        heard: dict[int, str] = {}
        threads = [
            threading.Thread(target=lambda i=i: heard.__setitem__(i, ask(engine, *asked[i])))  # type: ignore[misc]
            for i in range(len(asked))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert [heard[i] for i in range(len(asked))] == alone
        assert len(set(alone)) == len(alone)
        assert list(engine._loaded.by_name) == ["base"]  # one for all of them, though one model is kept at most


def test_adapters_go_and_come_back_with_their_base(folder: Path) -> None:
    models = find_models(folder)
    with Engine(models, Settings(models=str(folder), context=512)) as engine:
        assert engine.default == "other"  # the smallest that is no adapter
        first = ask(engine, "one", "hi")
        assert list(engine._loaded.by_name) == ["base"]
        ask(engine, "other", "hi")
        assert list(engine._loaded.by_name) == ["other"]
        assert ask(engine, "one", "hi") == first


def test_two_adapters_over_one_base_answer_at_once_and_two_models_in_turn(folder: Path) -> None:
    long, came, both = Sampling(max_tokens=300, temperature=0, ignore_eos=True), list[str](), threading.Barrier(2)

    def listen(engine: Engine, name: str) -> None:
        both.wait(60)
        for _ in engine.stream(name, [{"role": "user", "content": "hi"}], long):
            came.append(name)

    settings = Settings(models=str(folder), model="base", context=512)
    with Engine(find_models(folder), settings) as engine:
        for pair, at_once in ((("one", "two"), True), (("one", "other"), False)):
            assert answer_at_once(*pair, engine.models, settings) == at_once
            came.clear()
            threads = [threading.Thread(target=listen, args=(engine, name)) for name in pair]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            turns = sum(name != before for before, name in pairwise(came))
            assert set(came) == set(pair)
            assert (turns > 1) == at_once
        assert answer_at_once("one", "base", engine.models, settings)
        assert not answer_at_once("one", "two", engine.models, replace(settings, slots=1))


def test_an_adapter_that_is_gone_is_its_users_to_hear_and_the_others_go_on(folder: Path, tmp_path: Path) -> None:
    for name in ("base", "one", "two"):
        (tmp_path / f"{name}.gguf").write_bytes((folder / f"{name}.gguf").read_bytes())
    with Engine(find_models(tmp_path), Settings(models=str(tmp_path), context=512)) as engine:
        (tmp_path / "two.gguf").unlink()
        with pytest.raises(ModelError, match="The model two cannot be loaded: the server's log says why"):
            ask(engine, "two", "hi")
        assert ask(engine, "one", "hi")
        assert ask(engine, "base", "hi")
