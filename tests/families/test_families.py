"""What must hold of every family: a tiny model with its true tokenizer, trained, exported, evaluated and asked."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pytest
import torch
from conversations import AWKWARD, FAR, REASONED, TAUGHT, Chat
from made import Made
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from common.errors import UserError
from llama.errors import RequestError
from llama.model import LlamaModel, Weights
from llama.types import Sampling
from pipeline.gguf.far import check_far_divergence, far_tokens
from pipeline.gguf.positions import round_ramp
from pipeline.models.chat import TODAY, encode, load_tokenizer, prompt_ids
from pipeline.models.control import control_tokens
from serve.engine import Engine
from serve.models.registry import find_models
from serve.settings import Settings

CONTEXT = 2048


@pytest.fixture(scope="module")
def served(made: Made) -> Iterator[LlamaModel]:
    """The unquantized file as the chat has it."""
    with LlamaModel(made.gguf("F16"), CONTEXT, threads=1, today=TODAY) as model:
        yield model


def test_every_stage_takes_it(made: Made, types: list[str]) -> None:
    assert [file["type"] for file in made.report("models/gguf/manifest.json")["files"]] == types
    evaluation = made.report("reports/evaluation.json")
    assert set(evaluation["gguf"]) == set(types)
    assert evaluation["tuned_model"]["loss"] < evaluation["base_model"]["loss"]


def test_the_chat_reads_what_transformers_reads(made: Made, served: LlamaModel, chats: dict[str, Chat]) -> None:
    for name, chat in chats.items():
        assert read(served, chat) == rendered(made.original, chat), name


def test_no_control_token_comes_out_of_words_in_the_chat(made: Made, served: LlamaModel) -> None:
    names = [token.content for token in control_tokens(made.original).values()][:200]
    forged = [{"role": "user", "content": "".join(f"a{name} b" for name in names)}]
    ids = served.prompt(forged)
    assert ids == rendered(made.original, forged)
    controls = control_tokens(made.original).keys()
    plain = [{"role": "user", "content": "a b"}]
    assert [i for i in ids if i in controls] == [i for i in served.prompt(plain) if i in controls]


def test_a_conversation_begins_with_one_bos_at_most(made: Made, served: LlamaModel) -> None:
    bos = made.original.bos_token_id
    ids = served.prompt(AWKWARD["told how"])
    assert ids.count(bos) == rendered(made.original, AWKWARD["told how"]).count(bos)
    assert ids[1] != bos


def test_an_answer_ends_at_each_of_its_ends(made: Made, served: LlamaModel) -> None:
    assert [end for end in made.ends if not served.is_end(end)] == []


def test_what_is_learnt_is_what_the_assistant_says_and_its_end(made: Made) -> None:
    said = [turn["content"] for turn in TAUGHT if turn["role"] == "assistant"]
    assert [without_end(made, text) for text in learnt(made, TAUGHT)] == said


def test_reasoning_is_learnt_where_the_family_reasons(made: Made) -> None:
    if not made.family.reasons:
        pytest.skip("it does not")
    first, second = learnt(made, REASONED)
    assert "Five and six." in first
    assert "It is 11." in first
    assert "Six fives." in second
    assert "It is 30." in second


def test_far_from_the_start_a_lost_scaling_or_window_is_refused(made: Made) -> None:
    if not made.family.lost:
        pytest.skip("it has neither")
    length = far_tokens(AutoConfig.from_pretrained(made.base).get_text_config(), CONTEXT)
    ids = made.original.apply_chat_template(FAR)["input_ids"]
    with Weights(made.gguf("F16")) as weights:
        check_far_divergence(weights, length, tuned(made), [ids], "cpu")
        with pytest.raises(UserError, match="is not the model that it was made of; logits behind"):
            check_far_divergence(weights, length, tuned(made, **made.family.lost), [ids], "cpu")


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_K_M"])
def test_it_answers_in_the_chat(made: Made, kind: str) -> None:
    settings = Settings(models=made.project / "models/gguf", model=f"{made.name}-{kind}", context=CONTEXT)
    with Engine(find_models(settings.models), settings) as engine:
        *_, last = engine.stream(settings.model, AWKWARD["told how"], Sampling(max_tokens=4, temperature=0))
    assert (last.finish == "length" and last.tokens == 4) or last.finish == "stop"


def read(served: LlamaModel, chat: Chat) -> list[int] | None:
    """A conversation as the chat reads it; None where the template refuses it."""
    try:
        return served.prompt(chat)
    except RequestError:
        return None


def rendered(tokenizer: Any, chat: Chat) -> list[int] | None:
    """The same by Transformers, in whose words control tokens are text."""
    try:
        return prompt_ids(tokenizer, chat)
    except UserError:
        return None


def learnt(made: Made, chat: Chat) -> list[str]:
    """What training learns of a conversation, a text for each turn."""
    tokenizer = load_tokenizer(made.config.model)
    texts = []
    for ids, mask in encode(tokenizer, chat, CONTEXT):
        for wanted, stretch in groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1]):
            if wanted:
                texts.append(tokenizer.decode([token for token, _ in stretch]))
    return texts


def without_end(made: Made, text: str) -> str:
    """A learnt text less the token that must end it, and the space that some templates have around it."""
    (end,) = (end for end in made.family.ends if text.endswith(end))
    return text.removesuffix(end).strip()


def tuned(made: Made, **settings: Any) -> Any:
    """Base and adapter in Transformers; `settings` over its configuration's own."""
    base = AutoModelForCausalLM.from_pretrained(made.base, dtype=torch.float32, **settings)
    round_ramp(base)
    return PeftModel.from_pretrained(base, str(made.project / "models/adapter")).eval()
