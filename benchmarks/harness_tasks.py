"""Tasks in lm-evaluation-harness's own formats, after the forms of eight that are much used, of data that is at hand.

Facts, sums and letters are the starter's questions (starter/questions.jsonl), texts and problems are GSM8K's where its
folder is given, else the starter's chats. Each task is a YAML file beside its JSONL.
"""

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from benchmarks.inputs import CHATS, REPOSITORY

QUESTIONS = REPOSITORY / "starter/questions.jsonl"
SEED = 0
SHOTS = 5
PAGES = 10  # which take longest, and are not graded
ENDING = 12  # words of a text's end at most
LETTERS = ["A", "B", "C", "D"]
LONGEST = 420  # characters of a problem with its answer, so that a few of them fit into a context of 1,024

Row = Mapping[str, object]


class Choice(TypedDict):
    """A question with answers to choose from."""

    question: str
    answer: str
    options: list[str]
    right: int  # of them


def write_tasks(folder: Path, items: int, generations: int, gsm8k: Path | None) -> list[Path]:
    """Write all tasks with their data; return their files.

    Args:
        folder: where to.
        items: of each task at most.
        generations: items of the tasks in which a model writes, which take longest, at most.
        gsm8k: a folder with GSM8K's train.jsonl and test.jsonl.
    """
    asked = choices(_shuffled(_rows(QUESTIONS), "questions"))
    texts, problems = list(_texts(gsm8k)), list(_problems(gsm8k))
    rows: dict[str, Sequence[Row]] = {
        "arc": asked,
        "hellaswag": list(endings(texts)),
        "piqa": list(map(_two, asked)),
        "lambada": [{"text": text} for text in texts],
        "wikitext": [{"page": "\n".join(texts[at : at + 6])} for at in range(0, len(texts), 6)][: PAGES + SHOTS],
        "mmlu": [row for row in asked if len(row["options"]) == len(LETTERS)],
        "gsm8k": problems,
        "triviaqa": [{**row, "aliases": [row["answer"], f"the {row['answer']}"]} for row in asked],
    }
    return [write_task(folder, name, rows[name], generations if _writes(name) else items) for name in rows]


def write_task(folder: Path, name: str, rows: Sequence[Row], items: int) -> Path:
    """Write one task: its first rows for examples, others to ask."""
    splits = {"validation": rows[:SHOTS], "test": rows[SHOTS : SHOTS + items]}
    for split, of_split in splits.items():
        lines = (json.dumps(row) + "\n" for row in of_split)
        (folder / f"{name}-{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    settings = {
        "task": f"local_{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: str(folder / f"{name}-{split}.jsonl") for split in splits}},
        "fewshot_split": "validation",
        "test_split": "test",
        "num_fewshot": 0,
        "fewshot_config": {"sampler": "first_n"},
        **FORMS[name],
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(settings, indent=1), encoding="utf-8")  # which is YAML too
    return path


def choices(questions: Sequence[dict[str, str]]) -> list[Choice]:
    """Return questions with up to four answers: their own, and some that others of the same task have."""
    draw, rows = random.Random(SEED), []
    for question in questions:
        others = sorted({row["answer"] for row in questions if row["task"] == question["task"]} - {question["answer"]})
        options = [question["answer"], *draw.sample(others, min(len(LETTERS) - 1, len(others)))]
        draw.shuffle(options)
        right = options.index(question["answer"])
        rows.append(Choice(question=question["prompt"], answer=question["answer"], options=options, right=right))
    return rows


def endings(texts: Sequence[str]) -> Iterator[Row]:
    """Yield beginnings of texts, each with its own end and three of others."""
    draw = random.Random(SEED)
    split = [(words, len(words) // 2) for words in (text.split() for text in texts)]
    halves = [(words[:half], words[half : half + ENDING]) for words, half in split]
    for at, (begin, end) in enumerate(halves):
        others = [halves[other][1] for other in draw.sample([n for n in range(len(halves)) if n != at], 3)]
        options = [" ".join(option) for option in [end, *others]]
        draw.shuffle(options)
        yield {"begin": " ".join(begin), "options": options, "right": options.index(" ".join(end))}


def _two(row: Choice) -> Choice:
    """Return a question with its answer and one more, in the order of a coin."""
    wrong = next(option for option in row["options"] if option != row["answer"])
    options = [row["answer"], wrong] if len(row["question"]) % 2 else [wrong, row["answer"]]
    return {**row, "options": options, "right": options.index(row["answer"])}


def _texts(gsm8k: Path | None) -> Iterator[str]:
    """Yield texts of some sentences."""
    if gsm8k:
        yield from (row["question"] for row in _rows(gsm8k / "train.jsonl"))
    else:
        for line in CHATS.read_text(encoding="utf-8").splitlines():
            yield " ".join(message["content"] for message in json.loads(line)["messages"])


def _problems(gsm8k: Path | None) -> Iterator[dict[str, str]]:
    """Yield problems whose answers end in `#### NUMBER`."""
    if gsm8k:
        every = _rows(gsm8k / "test.jsonl")
        yield from (row for row in every if len(row["question"]) + len(row["answer"]) < LONGEST)
    else:
        for row in _rows(QUESTIONS):
            if re.fullmatch(r"\d+", row["answer"]):
                yield {"question": row["prompt"], "answer": f"#### {row['answer']}"}


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _shuffled(rows: list[dict[str, str]], name: str) -> list[dict[str, str]]:
    random.Random(f"{SEED} {name}").shuffle(rows)
    return rows


def _writes(name: str) -> bool:
    return FORMS[name]["output_type"] == "generate_until"


def _mean(*metrics: str, **options: object) -> list[dict[str, object]]:
    return [{"metric": metric, "aggregation": "mean", "higher_is_better": True, **options} for metric in metrics]


_CHOICE = {"output_type": "multiple_choice", "doc_to_choice": "{{options}}", "doc_to_target": "{{right}}"}
# What differs from task to task. `exact_match` gets the options that the harness's own tasks give it.
FORMS: dict[str, Row] = {
    "arc": {**_CHOICE, "doc_to_text": "Question: {{question}}\nAnswer:", "metric_list": _mean("acc", "acc_norm")},
    "hellaswag": {**_CHOICE, "doc_to_text": "{{begin}}", "metric_list": _mean("acc", "acc_norm")},
    "piqa": {**_CHOICE, "doc_to_text": "Question: {{question}}\nAnswer:", "metric_list": _mean("acc", "acc_norm")},
    "lambada": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
        "doc_to_target": "{{' ' + text.split(' ')[-1]}}",
        "metric_list": [
            *_mean("acc"),
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
        ],
    },
    "wikitext": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{page}}",
        "metric_list": [{"metric": metric} for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    },
    "mmlu": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}\n{% for each in options %}{{'ABCD'[loop.index0]}}. {{each}}\n{% endfor %}Answer:",
        "doc_to_choice": LETTERS,
        "doc_to_target": "right",
        "num_fewshot": SHOTS,
        "metric_list": _mean("acc"),
    },
    "gsm8k": {
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{answer}}",
        "num_fewshot": 2,
        "generation_kwargs": {"until": ["Question:"], "do_sample": False, "max_gen_toks": 128},
        "metric_list": _mean("exact_match", ignore_case=True, regexes_to_ignore=[",", "\\$", "(?s).*#### ", "\\.$"]),
        "filter_list": [
            {
                "name": "strict-match",
                "filter": [
                    {"function": "regex", "regex_pattern": "#### (\\-?[0-9\\.\\,]+)"},
                    {"function": "take_first"},
                ],
            },
            {
                "name": "flexible-extract",
                "filter": [
                    {"function": "regex", "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)", "group_select": -1},
                    {"function": "take_first"},
                ],
            },
        ],
    },
    "triviaqa": {
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{aliases}}",
        "generation_kwargs": {"until": ["\n", ".", ","], "do_sample": False, "max_gen_toks": 16},
        "metric_list": _mean("exact_match", ignore_case=True, ignore_punctuation=True),
        "filter_list": [
            {"name": "remove_whitespace", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
        ],
    },
}
