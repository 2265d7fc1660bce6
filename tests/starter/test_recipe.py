"""The starter comes out of its recipe byte for byte, and holds out what it says it holds out."""

import hashlib
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from string import Formatter

import pytest
from safetensors import safe_open
from transformers import PreTrainedTokenizerFast

from starter import chats, general, statements, tokenizer
from starter.computed import CLOSINGS, COMPUTED, GREETINGS, NEWS, UNITS, is_held_out
from starter.phrases import BACKWARD, FACT_PHRASES, FOLLOW_UPS, PHRASES
from starter.world import FACTS, TABLES, Fact

STARTER = Path(chats.__file__).parent
MODELS = STARTER / "models"
NAMES = ("starter-s", "starter-m")
CHUNK_0 = "8b34db3fab9d250902a3a88881226d0b981c8646ec640391ef628a786d8260ba"
CHUNKS = 12  # of texts, a thousand each, looked through for what is held out

NUMBERS = r"\d+(?:, \d+)+"
NUMBER_RUN = re.compile(NUMBERS)
# What may stand in the fields of computed tasks; all others are whole numbers.
FIELDS = {
    "shown": NUMBERS,
    "large": "|".join(large for large, _, _ in UNITS),
    "small": "|".join(small for _, _, small in UNITS),
    "unit": "days|months",
    "start": "[A-Z][a-z]+",
    "chain": r"\d [A-Z][a-z]+(?:, \d [A-Z][a-z]+)*",
    "word": "[a-z]+",
    "letter": "[a-z]",
    "spelled": "[a-z](?: [a-z])+",
    "times": "times?",
    "informal": '[^"]+',
}
RESULTS = {
    "fibonacci": NUMBERS,
    "calendar": "[A-Z][a-z]+",
    "spelling": "[a-z](?: [a-z])+",
    "first_letter": "[a-z]",
    "last_letter": "[a-z]",
    "message": ".+?",
}


@pytest.fixture(scope="module")
def trained() -> PreTrainedTokenizerFast:
    return tokenizer.train()


@pytest.fixture(scope="module")
def shipped_chats() -> list[list[dict[str, str]]]:
    lines = (STARTER / "chats.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"] for line in lines]


@pytest.fixture(scope="module")
def read_texts() -> str:
    return "\n".join(text for chunk in range(CHUNKS) for text in statements.texts(chunk))


def pattern(template: str, task: str) -> re.Pattern[str]:
    """What a template of a computed task looks like when filled; its fields are named groups."""
    parts, named = [], set()
    for literal, field, _, _ in Formatter().parse(template):
        parts.append(re.escape(literal))
        if field in named:
            parts.append(f"(?P={field})")
        elif field:
            named.add(field)
            shape = RESULTS.get(task, r"\d+") if field == "result" else FIELDS.get(field, r"\d+")
            parts.append(f"(?P<{field}>{shape})")
    return re.compile("".join(parts))


def case_key(task: str, found: dict[str, str]) -> tuple[object, ...] | None:
    """The key of a case as computed.py tells cases apart; None where a template shows too little of it."""
    if task == "fibonacci":
        first, second = found["shown"].split(", ")[:2]
        return int(first), int(second)
    if task == "sum":
        a, b = int(found["a"]), int(found["b"])
        return min(a, b), max(a, b)
    if task == "difference":
        return int(found["a"]), int(found["b"])
    if task == "conversion":
        return found["large"], found["small"], int(found["n"])
    if task == "calendar":
        return (found["start"], int(found["k"])) if "k" in found else None
    if task == "message":
        return message_key(found["informal"])
    word = found.get("word") or found["spelled"].replace(" ", "")
    return (word, found["letter"]) if task == "letter_count" else (word,)


def message_key(informal: str) -> tuple[str, str, str] | None:
    for greeting in GREETINGS:
        for closing in CLOSINGS:
            if informal.startswith(f"{greeting}, ") and informal.endswith(f" {closing}"):
                said = informal.removeprefix(f"{greeting}, ").removesuffix(f" {closing}")
                for news in NEWS:
                    if re.fullmatch(re.escape(news).replace(r"\{n\}", r"\d").replace(r"\{s\}", "s?"), said):
                        return greeting, news, closing
    return None


def cases_in(text: str, task: str) -> Iterator[tuple[object, ...]]:
    """The cases of a computed task that a text states or asks about."""
    for template in {*PHRASES[task].statements, *PHRASES[task].questions}:
        for match in pattern(template, task).finditer(text):
            if (key := case_key(task, match.groupdict())) is not None:
                yield key


def user_turns(conversation: list[dict[str, str]]) -> list[str]:
    return [message["content"] for message in conversation if message["role"] == "user"]


def questions_about(fact: Fact) -> dict[str, str]:
    """Every question about a fact, in both directions and all phrasings, with its task."""
    tasks = [task for task in FACT_PHRASES if BACKWARD.get(task, task) == fact.relation]
    return {
        phrase.format(**vars(fact)): task
        for task in tasks
        for phrase in (*FACT_PHRASES[task].questions, *FACT_PHRASES[task].held_out)
    }


@pytest.mark.parametrize("name", ["chats.jsonl", "questions.jsonl"])
def test_chats_and_questions_come_out_of_the_recipe_byte_for_byte(name: str, tmp_path: Path) -> None:
    chats.write(tmp_path)
    assert (tmp_path / name).read_bytes() == (STARTER / name).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_the_tokenizer_comes_out_of_the_recipe_byte_for_byte(
    trained: PreTrainedTokenizerFast, name: str, tmp_path: Path
) -> None:
    trained.save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / file).read_bytes() == (MODELS / name / file).read_bytes(), file


def test_the_first_texts_of_the_corpus_are_the_recorded_ones() -> None:
    texts = list(statements.texts(0))
    assert len(texts) == statements.CHUNK
    assert hashlib.sha256("\n".join(texts).encode()).hexdigest() == CHUNK_0


@pytest.mark.parametrize("task", list(COMPUTED))
def test_no_held_out_case_of_a_computed_task_is_in_the_chats(
    task: str, shipped_chats: list[list[dict[str, str]]]
) -> None:
    patterns = [pattern(template, task) for template in PHRASES[task].questions]
    asked = [turn for conversation in shipped_chats for turn in user_turns(conversation)]
    found = [match.groupdict() for turn in asked for p in patterns if (match := p.fullmatch(turn))]
    keys = {case_key(task, groups) for groups in found}
    assert len(keys) > 20
    assert None not in keys
    assert {key for key in keys if key and is_held_out(task, *key)} == set()


@pytest.mark.parametrize("task", list(COMPUTED))
def test_no_held_out_case_of_a_computed_task_is_in_the_texts(task: str, read_texts: str) -> None:
    keys = set(cases_in(read_texts, task))
    assert len(keys) > 20
    assert {key for key in keys if is_held_out(task, *key)} == set()


def test_every_fibonacci_sequence_in_the_texts_starts_as_one_that_is_not_held_out(read_texts: str) -> None:
    runs = [list(map(int, run.split(", "))) for run in NUMBER_RUN.findall(read_texts)]
    starts = {tuple(run[:2]) for run in runs if len(run) >= 4}
    assert len(starts) > 20
    assert {start for start in starts if is_held_out("fibonacci", *start)} == set()


def test_held_out_questions_are_about_held_out_cases_alone() -> None:
    for question in chats.questions():
        task = question["task"]
        if task not in COMPUTED:
            continue
        matches = [pattern(template, task).fullmatch(question["prompt"]) for template in PHRASES[task].questions]
        keys = {case_key(task, match.groupdict()) for match in matches if match}
        assert keys
        assert all(key and is_held_out(task, *key) for key in keys), question


def test_facts_never_asked_about_are_asked_in_neither_direction(shipped_chats: list[list[dict[str, str]]]) -> None:
    unasked = [fact for fact in FACTS if fact.unasked]
    forbidden = {question for fact in unasked for question in questions_about(fact)}
    # A follow-up names no task: the question before it does.
    follow_ups = {(fact.relation, phrase.format(subject=fact.subject)) for fact in unasked for phrase in FOLLOW_UPS}
    tasks = {question: task for fact in FACTS if not fact.unasked for question, task in questions_about(fact).items()}
    seen = 0
    for conversation in shipped_chats:
        turns = user_turns(conversation)
        assert not forbidden & set(turns), turns
        pairs = [(tasks.get(before, ""), turn) for before, turn in pairwise(turns)]
        assert not follow_ups & set(pairs), turns
        seen += sum(turn in tasks for turn in turns)
    assert len(unasked) > 30
    assert seen > 1000


def test_every_unasked_fact_is_a_test_question_and_every_relation_has_some() -> None:
    asked = [question for question in chats.questions() if question["group"] == "unasked"]
    assert {BACKWARD.get(question["task"], question["task"]) for question in asked} == set(TABLES)
    possible = {question for fact in FACTS if fact.unasked for question in questions_about(fact)}
    assert {question["prompt"] for question in asked} <= possible


def test_held_out_phrasings_stand_in_neither_chats_nor_texts(
    shipped_chats: list[list[dict[str, str]]], read_texts: str
) -> None:
    turns = {turn for conversation in shipped_chats for turn in user_turns(conversation)}
    held_out = {
        phrase.format(**vars(fact))
        for fact in FACTS
        for task, phrases in FACT_PHRASES.items()
        if BACKWARD.get(task, task) == fact.relation
        for phrase in phrases.held_out
    }
    assert not held_out & turns
    assert [phrase for phrase in held_out if phrase in read_texts] == []


def test_no_test_question_is_asked_in_the_chats(shipped_chats: list[list[dict[str, str]]]) -> None:
    turns = {turn for conversation in shipped_chats for turn in user_turns(conversation)}
    questions = [question["prompt"] for question in chats.questions()]
    assert len(questions) == len(set(questions))
    assert not turns & set(questions)


@pytest.mark.parametrize("name", NAMES)
def test_models_ship_with_llama_3_special_tokens_and_a_template_that_marks_the_assistant(name: str) -> None:
    shipped = PreTrainedTokenizerFast.from_pretrained(MODELS / name)
    assert shipped.bos_token == "<|begin_of_text|>"
    assert shipped.eos_token == "<|eot_id|>"
    assert shipped.pad_token == "<|finetune_right_pad_id|>"
    assert shipped.convert_tokens_to_ids(list(tokenizer.SPECIAL)) == list(range(len(tokenizer.SPECIAL)))
    for token in tokenizer.SPECIAL:
        assert shipped(token, add_special_tokens=False)["input_ids"] == [shipped.convert_tokens_to_ids(token)]
    assert "generation" in re.findall(r"{%-?\s*(\w+)", shipped.chat_template)
    config = json.loads((MODELS / name / "config.json").read_text())
    assert set(config["eos_token_id"]) == set(shipped.convert_tokens_to_ids(["<|eot_id|>", "<|end_of_text|>"]))


def test_digits_are_single_tokens() -> None:
    shipped = PreTrainedTokenizerFast.from_pretrained(MODELS / "starter-s")
    assert shipped.convert_ids_to_tokens(shipped("2026", add_special_tokens=False)["input_ids"]) == list("2026")


@pytest.mark.parametrize(("name", "least", "most"), [("starter-s", 2e6, 3e6), ("starter-m", 5.5e6, 6.5e6)])
def test_weights_are_bf16_and_as_many_as_promised(name: str, least: float, most: float) -> None:
    parameters = 0
    with safe_open(MODELS / name / "model.safetensors", "pt") as weights:
        for key in weights.keys():  # noqa: SIM118, no mapping
            tensor = weights.get_slice(key)
            assert tensor.get_dtype() == "BF16", key
            size = 1
            for side in tensor.get_shape():
                size *= side
            parameters += size
    config = json.loads((MODELS / name / "config.json").read_text())
    assert least <= parameters <= most
    assert parameters == json.loads((MODELS / name / "pretraining.json").read_text())["parameters"]
    assert config["hidden_size"] % 256 == config["intermediate_size"] % 256 == 0  # K-quantized rows


def test_the_models_folder_takes_at_most_25_mb() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) <= 25e6


def test_general_texts_come_out_of_the_recipe_and_are_none_that_the_base_has_read(tmp_path: Path) -> None:
    general.write(tmp_path)
    for name in ("statements.jsonl", "transcripts.jsonl", "replay.jsonl"):
        assert (tmp_path / name).read_bytes() == (STARTER / "general" / name).read_bytes()
    lines = [(tmp_path / f"{name}.jsonl").read_text(encoding="utf-8").splitlines() for name in ("statements", "replay")]
    assert not set(lines[0]) & set(lines[1])
    read = {general.MARKS.sub("", text) for chunk in range(CHUNKS) for text in statements.texts(chunk)}
    assert not read & {json.loads(line)["text"] for line in lines[0]}
