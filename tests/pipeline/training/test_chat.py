"""Chat templates: what they write, and that the assistant's tokens alone are marked."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pipeline.config import ModelSettings
from pipeline.errors import UserError
from pipeline.training.chat import encode, load_tokenizer

REPO = Path(__file__).parents[3]
STARTER = REPO / "starter/models/starter-s"
TEMPLATES = REPO / "pipeline/training/templates"
TRL_TEMPLATES = files("trl") / "chat_templates"

SYSTEM = {"role": "system", "content": " You are\nterse. "}
CHAT = [
    {"role": "user", "content": " What is 5 + 6? "},
    {"role": "assistant", "content": "5 + 6 = 11."},
    {"role": "user", "content": "And 1 + 1?"},
    {"role": "assistant", "content": " 1 + 1 = 2. "},
]
CONVERSATIONS = {
    "one turn": CHAT[:2],
    "two turns": CHAT,
    "under a system prompt": [SYSTEM, *CHAT],
    "before the answer": CHAT[:3],
    "before the answer, under a system prompt": [SYSTEM, *CHAT[:1]],
}


def model(**changes: Any) -> ModelSettings:
    settings = {"name": "tiny", "path": str(STARTER), "chat_template": None, "load_in_4bit": False}
    return ModelSettings(**settings | dict.fromkeys(("revision", "merge_path", "merge_revision")) | changes)


def family(folder: Path, template: str, special: tuple[str, ...], **tokens: str) -> ModelSettings:
    """A model folder with the starter's vocabulary under another family's template and special tokens."""
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    tokenizer.add_special_tokens({"additional_special_tokens": list(special), **tokens})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return model(path=str(folder))


def learnt(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> list[str]:
    """The marked stretches of a conversation as text."""
    ids, mask = encode(tokenizer, messages, 10_000)
    assert len(ids) == len(mask)
    stretches, before = [], 0
    for token, said in zip(ids, mask, strict=True):
        if said and not before:
            stretches.append([])
        if said:
            stretches[-1].append(token)
        before = said
    return [str(tokenizer.decode(stretch)) for stretch in stretches]


@pytest.fixture(scope="module")
def starter() -> PreTrainedTokenizerBase:
    return load_tokenizer(model())


def test_the_assistants_tokens_with_their_end_are_marked_and_no_others(starter: PreTrainedTokenizerBase) -> None:
    assert learnt(starter, [SYSTEM, *CHAT]) == ["5 + 6 = 11.<|eot_id|>", "1 + 1 = 2.<|eot_id|>"]
    assert learnt(starter, CHAT[:1]) == []


def test_the_token_ids_are_those_of_the_rendered_text(starter: PreTrainedTokenizerBase) -> None:
    ids, _ = encode(starter, [SYSTEM, *CHAT], 10_000)
    text = str(starter.apply_chat_template([SYSTEM, *CHAT], tokenize=False))
    assert text.startswith("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are\nterse.<|eot_id|>")
    assert ids == starter(text, add_special_tokens=False)["input_ids"]
    assert ids.count(starter.bos_token_id) == 1


def test_a_long_conversation_is_cut_with_its_marks(starter: PreTrainedTokenizerBase) -> None:
    ids, mask = encode(starter, CHAT, 10_000)
    assert encode(starter, CHAT, 12) == (ids[:12], mask[:12])


def test_padding_is_a_token_of_its_own(starter: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    assert starter.pad_token == "<|finetune_right_pad_id|>"
    bare = AutoTokenizer.from_pretrained(STARTER)
    bare.pad_token = None
    bare.save_pretrained(tmp_path)
    # Padding with an end token would hide it from the loss; the vocabulary has one kept for padding.
    assert load_tokenizer(model(path=str(tmp_path))).pad_token == "<|finetune_right_pad_id|>"


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
@pytest.mark.parametrize("prompt", [False, True])
def test_the_llama_template_writes_the_bytes_of_the_original(messages: list[dict[str, str]], prompt: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    rendered = []
    for template in (TEMPLATES / "llama-3.2.jinja", TRL_TEMPLATES / "llama3_2.jinja"):
        tokenizer.chat_template = template.read_text(encoding="utf-8")
        for date in ("26 Jul 2024", "1 Jan 2027"):
            rendered.append(
                tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=prompt, date_string=date
                ).encode()
            )
    assert rendered[0] == rendered[2] != rendered[1] == rendered[3]


def test_the_llama_template_does_not_change_with_the_day() -> None:
    tokenizer = load_tokenizer(model(chat_template=str(TEMPLATES / "llama-3.2.jinja")))
    assert "Today Date: 26 Jul 2024\n" in str(tokenizer.apply_chat_template(CHAT, tokenize=False))


def test_the_smollm2_template_writes_chatml() -> None:
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    tokenizer.chat_template = (TEMPLATES / "smollm2.jinja").read_text(encoding="utf-8")
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\n What is 5 + 6? <|im_end|>\n"
        "<|im_start|>assistant\n5 + 6 = 11.<|im_end|>\n"
        "<|im_start|>user\nAnd 1 + 1?<|im_end|>\n"
        "<|im_start|>assistant\n 1 + 1 = 2. <|im_end|>\n"
    )
    assert tokenizer.apply_chat_template([SYSTEM, CHAT[0]], tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\n You are\nterse. <|im_end|>\n"
        "<|im_start|>user\n What is 5 + 6? <|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_mistral_template_writes_instructions_with_the_system_prompt_in_the_last() -> None:
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    tokenizer.chat_template = (TEMPLATES / "mistral-v0.3.jinja").read_text(encoding="utf-8")
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    first = "<s>[INST]  What is 5 + 6? [/INST] 5 + 6 = 11.</s>"
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == f"{first}[INST] And 1 + 1?[/INST] 1 + 1 = 2.</s>"
    told = " You are\nterse. \n\n"
    assert tokenizer.apply_chat_template([SYSTEM, *CHAT], tokenize=False) == (
        f"{first}[INST] {told}And 1 + 1?[/INST] 1 + 1 = 2.</s>"
    )
    assert tokenizer.apply_chat_template([SYSTEM, *CHAT[:3]], tokenize=False, add_generation_prompt=True) == (
        f"{first}[INST] {told}And 1 + 1?[/INST]"
    )


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("llama-3.2", ["5 + 6 = 11.<|eot_id|>", "1 + 1 = 2.<|eot_id|>"]),
        ("smollm2", ["5 + 6 = 11.<|im_end|>", " 1 + 1 = 2. <|im_end|>"]),
        ("mistral-v0.3", [" 5 + 6 = 11.<|eot_id|>", " 1 + 1 = 2.<|eot_id|>"]),
    ],
)
def test_each_shipped_template_marks_the_assistant_alone(template: str, said: list[str]) -> None:
    tokenizer = load_tokenizer(model(chat_template=str(TEMPLATES / f"{template}.jinja")))
    assert learnt(tokenizer, [SYSTEM, *CHAT]) == said


@pytest.mark.parametrize(
    ("template", "special", "said"),
    [
        # TRL's twins mark a line break before or after, too.
        ("qwen2_5", ("<|im_start|>", "<|im_end|>"), ["5 + 6 = 11.<|im_end|>", " 1 + 1 = 2. <|im_end|>"]),
        ("gemma3", ("<start_of_turn>", "<end_of_turn>"), ["5 + 6 = 11.<end_of_turn>", "1 + 1 = 2.<end_of_turn>"]),
    ],
)
def test_a_family_that_trl_knows_gets_the_marks_and_keeps_its_bytes(
    tmp_path: Path, template: str, special: tuple[str, ...], said: list[str]
) -> None:
    original = (TRL_TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8")
    assert "{% generation %}" not in original
    settings = family(tmp_path, original, special)
    tokenizer = load_tokenizer(settings)
    assert [stretch.strip("\n") for stretch in learnt(tokenizer, [SYSTEM, *CHAT])] == said
    plain = AutoTokenizer.from_pretrained(tmp_path)
    for messages in CONVERSATIONS.values():
        for prompt in (False, True):
            ours, theirs = (
                t.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
                for t in (tokenizer, plain)
            )
            assert ours == theirs


@pytest.mark.parametrize("template", [None, "{% for m in messages %}{{ m['content'] }}{% endfor %}"])
def test_a_template_without_marks_is_refused_in_one_line(tmp_path: Path, template: str | None) -> None:
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"does not mark what the assistant says; set model\.chat_template") as raised:
        load_tokenizer(model(path=str(tmp_path)))
    assert "\n" not in str(raised.value)


def test_a_template_file_that_is_missing_is_named_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^model\.chat_template .*nowhere\.jinja") as raised:
        load_tokenizer(model(chat_template="nowhere.jinja"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("broken", ["no tokenizer", "half a tokenizer"])
def test_a_folder_without_a_whole_tokenizer_is_refused_in_one_line(tmp_path: Path, broken: str) -> None:
    if broken == "half a tokenizer":
        half = (STARTER / "tokenizer.json").read_text(encoding="utf-8")[:10_000]
        (tmp_path / "tokenizer.json").write_text(half, encoding="utf-8")
    (tmp_path / "config.json").write_bytes((STARTER / "config.json").read_bytes())
    with pytest.raises(UserError, match=r"cannot be loaded .*its folder needs config\.json, a") as raised:
        load_tokenizer(model(path=str(tmp_path)))
    assert "\n" not in str(raised.value)
