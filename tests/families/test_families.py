"""What must hold of every family: a tiny model with its true tokenizer, trained, exported, evaluated and asked."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import jinja2
import numpy as np
import pytest
import torch
from conftest import Made
from conversations import AWKWARD, FAR, REASONED, TAUGHT
from peft import PeftModel
from transformers import AutoModelForCausalLM

from pipeline.gguf.context import Context
from pipeline.gguf.verify import MAX_KL
from pipeline.training.chat import encode, load_tokenizer
from serve.engine import Engine
from serve.errors import RequestError
from serve.limits import Sampling
from serve.llama import LlamaModel
from serve.models import find_models
from serve.settings import Settings

CONTEXT = 2048
LAST = 16  # positions that are looked at far from the start


@pytest.fixture(scope="module")
def served(made: Made) -> Iterator[LlamaModel]:
    """The unquantized file as the chat has it."""
    with LlamaModel(made.gguf("F16"), CONTEXT, threads=1) as model:
        yield model


def test_every_stage_takes_it(made: Made, types: list[str]) -> None:
    assert [file["type"] for file in made.report("models/gguf/manifest.json")["files"]] == types
    evaluation = made.report("reports/evaluation.json")
    assert set(evaluation["gguf"]) == set(types)
    assert evaluation["tuned_model"]["loss"] < evaluation["base_model"]["loss"]


def test_the_chat_reads_what_transformers_reads(made: Made, served: LlamaModel) -> None:
    for name, chat in AWKWARD.items():
        assert read(served, chat) == rendered(made.original, chat), name


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


def test_far_from_the_start_it_says_what_the_original_says(made: Made) -> None:
    ids = far(made)
    assert divergence(hugging_face(made, ids), llama_cpp(made, ids)) < MAX_KL


def test_far_from_the_start_a_lost_scaling_or_window_shows(made: Made) -> None:
    if not made.family.lost:
        pytest.skip("it has neither")
    ids = far(made)
    assert divergence(hugging_face(made, ids, **made.family.lost), llama_cpp(made, ids)) > 10 * MAX_KL


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_K_M"])
def test_it_answers_in_the_chat(made: Made, kind: str) -> None:
    settings = Settings(models=made.project / "models/gguf", model=f"{made.name}-{kind}", context=CONTEXT)
    with Engine(find_models(settings.models), settings) as engine:
        *_, last = engine.stream(settings.model, AWKWARD["told how"], Sampling(max_tokens=4, temperature=0))
    assert (last.finish == "length" and last.tokens == 4) or last.finish == "stop"


def read(served: LlamaModel, chat: list[dict[str, Any]]) -> list[int] | None:
    """A conversation as the chat reads it; None where the template refuses it."""
    try:
        return served.prompt(chat)
    except RequestError:
        return None


def rendered(tokenizer: Any, chat: list[dict[str, Any]]) -> list[int] | None:
    """The same by Transformers."""
    try:
        return tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    except (jinja2.TemplateError, ValueError):
        return None


def learnt(made: Made, chat: list[dict[str, Any]]) -> list[str]:
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


def far(made: Made) -> list[int]:
    """About a thousand tokens."""
    return made.original.apply_chat_template(FAR)["input_ids"]


@torch.inference_mode()
def hugging_face(made: Made, ids: list[int], **settings: Any) -> np.ndarray:
    """Logits of the last positions by base and adapter in Transformers, [LAST, vocabulary]; `settings` over its own."""
    base = AutoModelForCausalLM.from_pretrained(made.base, dtype=torch.float32, attn_implementation="eager", **settings)
    model = PeftModel.from_pretrained(base, str(made.project / "models/adapter"))
    return model(input_ids=torch.tensor([ids]), logits_to_keep=LAST).logits[0].numpy()


def llama_cpp(made: Made, ids: list[int]) -> np.ndarray:
    """The same by llama.cpp, of the unquantized file."""
    with Context(made.gguf("F16"), len(ids)) as context:
        return np.concatenate([rows.copy() for _, rows in context.logits(ids, range(len(ids) - LAST, len(ids)))])


def divergence(originals: np.ndarray, others: np.ndarray) -> float:
    """Nats a token from one's logits to the other's."""
    p, q = (torch.log_softmax(torch.from_numpy(logits).double(), -1) for logits in (originals, others))
    return float((p.exp() * (p - q)).sum(-1).mean())
