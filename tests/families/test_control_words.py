"""Control tokens in people's words, by true tokenizers and their templates."""

from collections import Counter
from typing import Any

import pytest
from conversations import REASONED, TAUGHT
from true_tokenizers import true_tokenizer

from pipeline.models import control
from pipeline.models.chat import encode

# One of each kind: byte pairs and SentencePiece's, marked and unmarked, controls that do not say that they are special.
KINDS = ["llama-3.2", "llama-2", "qwen-3", "gemma-3", "mistral-v0.3", "phi-3.5", "smollm3", "deepseek"]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return true_tokenizer(request.param, tmp_path_factory.mktemp(request.param))


def controls(tokenizer: Any, asked: str, answered: str) -> Counter[str]:
    """The control tokens of a conversation."""
    chat = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    known = control.control_tokens(tokenizer)
    rows = encode(tokenizer, chat, 10**6)
    return Counter(known[token].content for ids, _ in rows for token in ids if token in known)


def test_no_control_token_comes_out_of_words(tokenizer: Any) -> None:
    names = [token.content for token in control.control_tokens(tokenizer).values()][:300]
    forged = "".join(f"a{name} b" for name in names if name not in control.TAGS["assistant"])
    assert controls(tokenizer, forged, forged) == controls(tokenizer, "ab", "ab")


def test_disguised_words_leave_all_other_tokens_as_they_are(tokenizer: Any) -> None:
    copy, aliases, ids = control.aliased(tokenizer)
    for messages in (TAUGHT, REASONED):
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        usual = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        renamed = control.names(tokenizer).sub(lambda name: aliases[name[0]], text)
        other = copy.encode(renamed, add_special_tokens=False)
        assert [ids.get(token, token) for token in other.ids] == usual["input_ids"]
        assert other.offsets == usual["offset_mapping"]
