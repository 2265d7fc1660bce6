"""Chat templates: what they write, and that the assistant's tokens alone are marked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from common.errors import UserError
from pipeline.core.config import ModelSettings
from pipeline.models.chat import encode, load_tokenizer, render

REPO = Path(__file__).parents[3]
STARTER = REPO / "starter/models/starter-s"

SYSTEM = {"role": "system", "content": " You are\nterse. "}
CHAT = [
    {"role": "user", "content": " What is 5 + 6? "},
    {"role": "assistant", "content": "5 + 6 = 11."},
    {"role": "user", "content": "And 1 + 1?"},
    {"role": "assistant", "content": " 1 + 1 = 2. "},
]


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
    ((ids, mask),) = encode(tokenizer, messages, 10_000)
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
    ((ids, _),) = encode(starter, [SYSTEM, *CHAT], 10_000)
    text = str(starter.apply_chat_template([SYSTEM, *CHAT], tokenize=False))
    assert text.startswith("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are\nterse.<|eot_id|>")
    assert ids == starter(text, add_special_tokens=False)["input_ids"]
    assert ids.count(starter.bos_token_id) == 1


def test_a_long_conversation_is_cut_with_its_marks(starter: PreTrainedTokenizerBase) -> None:
    ((ids, mask),) = encode(starter, CHAT, 10_000)
    assert encode(starter, CHAT, 12) == [(ids[:12], mask[:12])]


def test_padding_is_a_token_of_its_own(starter: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    assert starter.pad_token == "<|finetune_right_pad_id|>"
    bare = AutoTokenizer.from_pretrained(STARTER)
    bare.pad_token = None
    bare.save_pretrained(tmp_path)
    # Padding with an end token would hide it from the loss; the vocabulary has one kept for padding.
    assert load_tokenizer(model(path=str(tmp_path))).pad_token == "<|finetune_right_pad_id|>"


SPACED = "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
CHATML = SPACED + "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


@pytest.fixture(scope="module")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    """A folder with a template that marks nothing, and EOS another token than the one that ends an answer."""
    folder = tmp_path_factory.mktemp("chatml")
    settings = family(folder, CHATML, ("<|im_start|>", "<|im_end|>"), eos_token="<|end_of_text|>")
    GenerationConfig(
        eos_token_id=AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|im_end|>")
    ).save_pretrained(folder)
    return settings


def test_a_template_without_marks_is_marked_by_rule_and_stays_as_it_is(chatml: ModelSettings) -> None:
    tokenizer = load_tokenizer(chatml)
    assert tokenizer.chat_template == CHATML
    assert learnt(tokenizer, [SYSTEM, *CHAT]) == ["5 + 6 = 11.<|im_end|>", " 1 + 1 = 2. <|im_end|>"]
    ids, _ = encode(tokenizer, CHAT, 10_000)[0]
    text = str(tokenizer.apply_chat_template(CHAT, tokenize=False))
    assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1


def test_the_token_that_ends_an_answer_is_saved_with_the_tokenizer(chatml: ModelSettings, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(chatml)
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer_config.json").read_text().count("turn_end") == 1
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert encode(again, CHAT, 10_000) == encode(tokenizer, CHAT, 10_000)
    load_tokenizer(model()).save_pretrained(tmp_path / "starter")
    assert "turn_end" not in (tmp_path / "starter/tokenizer_config.json").read_text()


# As SmolLM3's: thinks until it is told not to, and then says so in the system prompt and before each answer.
SWITCHED = (
    "{% set quiet = enable_thinking is defined and not enable_thinking %}"
    "{{ '<|im_start|>system\n' + ('/no_think' if quiet else '/think') + '<|im_end|>\n' }}"
    "{% set begin = '<|im_start|>assistant\n' + ('<think>\n\n</think>\n' if quiet else '') %}"
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ begin }}{% generation %}"
    "{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ begin }}{% endif %}"
)
UNMARKED = SWITCHED.replace("{% generation %}", "").replace("{% endgeneration %}", "")


@pytest.mark.parametrize("template", [UNMARKED, SWITCHED], ids=["by rule", "by its marks"])
def test_a_row_stands_behind_the_prompt_for_thinking_or_for_none_as_it_has_reasoning(
    tmp_path: Path, template: str
) -> None:
    tokenizer = load_tokenizer(family(tmp_path, template, ("<|im_start|>",), eos_token="<|im_end|>"))
    for content, mode in (("5 + 6 = 11.", "no_think"), ("<think>\nFive.\n</think>\n\n11.", "think")):
        ((ids, mask),) = encode(tokenizer, [CHAT[0], {"role": "assistant", "content": content}], 10_000)
        asked = tokenizer.apply_chat_template(
            CHAT[:1], add_generation_prompt=True, tokenize=False, enable_thinking=mode == "think"
        )
        assert f"/{mode}" in asked
        first = mask.index(1)
        assert tokenizer.decode(ids[:first]) == asked
        assert tokenizer.decode(ids[first:]) == f"{content}<|im_end|>\n"


def test_turns_with_and_without_reasoning_make_rows_of_their_own(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(family(tmp_path, UNMARKED, ("<|im_start|>",), eos_token="<|im_end|>"))
    thinking = {**CHAT[1], "content": "<think>\nFive.\n</think>\n\n11."}
    rows = encode(tokenizer, [CHAT[0], thinking, *CHAT[2:]], 10_000)
    said = [tokenizer.decode([i for i, learnt in zip(*row, strict=True) if learnt]) for row in rows]
    assert said == [f"{thinking['content']}<|im_end|>", f"{CHAT[3]['content']}<|im_end|>"]


def test_marks_and_rule_agree(chatml: ModelSettings, tmp_path: Path) -> None:
    content = "m['content'] + '<|im_end|>"
    marked = CHATML.replace(
        "{{ '<|im_start|>' + m['role'] + '\n' + " + content + "\n' }}",
        "{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}{% generation %}{{ " + content + "' }}"
        "{% endgeneration %}{% else %}{{ " + content + "' }}{% endif %}{{ '\n' }}",
    )
    path = tmp_path / "marked.jinja"
    path.write_text(marked)
    by_marks = load_tokenizer(replace(chatml, chat_template=str(path)))
    for messages in (CHAT, CHAT[:2], [SYSTEM, *CHAT], [*CHAT[:1], {**CHAT[1], "weight": 0}, *CHAT[2:]]):
        for loss_on in ("all", "last"):
            expected = encode(load_tokenizer(chatml), messages, 10_000, loss_on)
            assert encode(by_marks, messages, 10_000, loss_on) == expected


def test_a_message_of_no_weight_is_shown_and_not_learnt(starter: PreTrainedTokenizerBase) -> None:
    weighed = [CHAT[0], {**CHAT[1], "weight": 0}, CHAT[2], {**CHAT[3], "weight": 1}]
    assert learnt(starter, weighed) == ["1 + 1 = 2.<|eot_id|>"]
    assert encode(starter, weighed, 10_000)[0][0] == encode(starter, CHAT, 10_000)[0][0]
    assert encode(starter, weighed, 10_000) == encode(starter, CHAT, 10_000, "last")


def test_the_date_is_the_same_every_day(starter: PreTrainedTokenizerBase) -> None:
    dated = AutoTokenizer.from_pretrained(STARTER)
    dated.chat_template = "{{ strftime_now('%d %b %Y') }}{{ messages[0]['content'] }}"
    assert render(dated, CHAT[:1], True) == "26 Jul 2024 What is 5 + 6? "


def test_a_plain_text_is_learnt_whole_in_as_many_rows_as_it_takes(starter: PreTrainedTokenizerBase) -> None:
    text = [{"role": "text", "content": "Once upon a time there was a colour."}]
    whole = [*starter(text[0]["content"])["input_ids"], starter.eos_token_id]
    assert encode(starter, text, 10_000) == [(whole, [1] * len(whole))]
    assert [ids for ids, _ in encode(starter, text, 5)] == [whole[at : at + 5] for at in range(0, len(whole), 5)]


def test_each_row_of_a_plain_text_begins_as_the_tokenizer_begins_a_text() -> None:
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    bos = tokenizer.bos_token_id
    with_bos = processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)])
    tokenizer.backend_tokenizer.post_processor = with_bos
    rows = encode(tokenizer, [{"role": "text", "content": "Once upon a time there was a colour."}], 5)
    assert all(ids[0] == bos and ids.count(bos) == 1 and len(ids) <= 5 for ids, _ in rows)
    assert all(mask == [0] + [1] * (len(ids) - 1) for ids, mask in rows)
    assert "".join(tokenizer.decode(ids[1:]) for ids, _ in rows) == "Once upon a time there was a colour.<|eot_id|>"


def test_the_shipped_template_for_base_models_is_learnt_by_rule() -> None:
    path = REPO / "pipeline/models/templates/plain.jinja"
    tokenizer = load_tokenizer(model(chat_template=str(path)))
    assert learnt(tokenizer, [SYSTEM, *CHAT]) == ["5 + 6 = 11.<|eot_id|>", "1 + 1 = 2.<|eot_id|>"]
    prompt = "<|begin_of_text|>User: What is 5 + 6?<|eot_id|>\nAssistant:"
    assert render(tokenizer, CHAT[:1], True) == prompt
    assert render(tokenizer, CHAT[:2], False).startswith(f"{prompt} 5 + 6 = 11.<|eot_id|>")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, r"has no chat template; set model\.chat_template to a file, such as pipeline/models/templates/plain"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", r"\(it ends no answer with a token that ends one"),
        ("{{ messages[-1]['role'] + eos_token }}", r"\(it does not write an answer as it is\)"),
        ("{{ messages[-1]['content'] + eos_token }}", r"\(it writes a question otherwise before an answer"),
        ("{{ messages[0]['tools'][0] }}", r"\('dict object' has no attribute 'tools'\)"),
    ],
)
def test_a_template_that_cannot_be_learnt_by_is_refused_in_one_line(
    tmp_path: Path, template: str | None, reason: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=reason) as raised:
        load_tokenizer(model(path=str(tmp_path)))
    assert "\n" not in str(raised.value)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize(("template", "said"), [("", "is empty"), ("{{ 1 }}", "does not tell what the assistant says")])
def test_a_template_of_the_users_is_refused_by_its_name(tmp_path: Path, template: str, said: str) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text(template, encoding="utf-8")
    with pytest.raises(UserError) as raised:
        load_tokenizer(model(chat_template=str(file)))
    assert str(raised.value).startswith(f"model.chat_template {file} {said}")


@pytest.mark.parametrize("path", ["/no/such/folder", "./folder"])
def test_a_folder_that_is_not_here_is_not_looked_for_on_the_hub(path: str) -> None:
    with pytest.raises(UserError) as raised:
        load_tokenizer(model(path=path))
    assert str(raised.value) == f"model {path} is no folder here; check model.path"


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
