"""Prepared chats as rows of token ids with what is learnt of them marked."""

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from common.errors import UserError
from common.files import sha256
from common.words import counted
from pipeline.core.code import code_digest
from pipeline.core.paths import COMPARED, PREPARED
from pipeline.models import control
from pipeline.models.chat import encode, is_text
from pipeline.models.refusal import Refusals, RefusedError
from pipeline.models.turns import Message
from pipeline.training.comparisons import Answer, Side
from pipeline.training.shared import Kept
from pipeline.training.updates import IGNORED

logger = logging.getLogger(__name__)

CODE = (  # that rows depend on
    "pipeline/training/rows.py", "llama/calls.py", "llama/control.py", "pipeline/models/chat.py",
    "pipeline/models/control.py", "pipeline/models/families.py", "pipeline/models/turns.py", "pipeline/models/whole.py",
)  # fmt: skip
FEATURES = Features(
    {
        "input_ids": List(Value("int64")),
        "labels": List(Value("int64")),
        "cut": Value("bool"),
        "learns": Value("bool"),
        "refused": Value("string"),
        "controls": Value("int64"),
        "conversation": Value("int64"),
    }
)


class LabelledRow(TypedDict):
    """Token ids, and what is learnt of them."""

    input_ids: list[int]
    labels: list[int]  # IGNORED where nothing is learnt
    cut: bool
    learns: bool  # something
    refused: str  # why the template does not take the conversation, or empty
    controls: int  # control tokens in its words, which stay text


class Tally(NamedTuple):
    """What became of the conversations of a split."""

    conversations: int
    rows: int
    several: int  # that make more than one row
    cut: int
    unlearnt: int  # left out, as nothing of the assistant's is left
    refusals: Refusals  # left out, as the chat template does not take them
    controls: int  # that have control tokens in their words


class Tokenized(NamedTuple):
    """A split as a model reads it."""

    rows: Dataset  # `input_ids` and `labels`, of which something is learnt, and the `conversation` that they are of
    tally: Tally


class Compared(NamedTuple):
    """Answers as a model reads them, and which of them are compared or judged."""

    rows: Dataset  # `input_ids` and `labels`
    comparisons: list[list[Answer]]


TOKENIZED: defaultdict[Path, Kept[Tokenized]] = defaultdict(Kept)


def supervised(
    split: str, tokenizer: PreTrainedTokenizerBase, max_length: int, max_truncated: float = 1.0, loss_on: str = "all"
) -> Dataset:
    """Return a prepared split as `input_ids` and `labels` of at most `max_length` tokens.

    Says what was cut or left out.

    A row in which nothing of the assistant's is left to learn would make an update without a loss.

    Args:
        split: `train` or `validation`.
        tokenizer: of `load_tokenizer`.
        max_length: in tokens; longer conversations are cut.
        max_truncated: the share of conversations, 0 to 1, that may be cut or left out.
        loss_on: `all` turns of the assistant's, or the `last`.

    Raises:
        UserError: the split is missing, no row has anything to learn, or too many are cut or left out.
    """
    path = PREPARED / f"{split}.parquet"
    if not path.is_file():
        raise UserError(f"{path} is missing; run `dvc repro prepare` first")
    made = tokenized(path, tokenizer, max_length, loss_on)
    logger.info(described(split, made.tally, max_length))
    require_enough(split, made.tally, max_length, max_truncated)
    return made.rows


def compared(
    split: str, tokenizer: PreTrainedTokenizerBase, max_length: int, max_truncated: float = 1.0, pairs: bool = True
) -> Compared:
    """Return the answers of a prepared split that are compared, or judged one by one; say what was cut or left out.

    Args:
        split: `train` or `validation`.
        tokenizer: of `load_tokenizer`.
        max_length: in tokens; longer conversations are cut.
        max_truncated: the share of answers, 0 to 1, that may be cut or left out.
        pairs: whether two answers are compared; else each is judged, the chosen ones of pairs as good.

    Raises:
        UserError: the split has nothing of the kind, or too many answers are cut or left out.
    """
    path = PREPARED / COMPARED / f"{split}.parquet"
    made, table = tokenized(path, tokenizer, max_length, "all"), pq.read_table(path, columns=["comparison", "good"])
    logger.info(described(f"answers of {split}", made.tally, max_length))
    if table.num_rows:
        require_enough(f"{split} answers'", made.tally, max_length, max_truncated)
    rows: defaultdict[int, list[int]] = defaultdict(list)  # by answer
    for row, answer in enumerate(made.rows["conversation"]):
        rows[answer].append(row)
    sides = [Side.CHOSEN if good else Side.REJECTED for good in table["good"].to_pylist()]
    answers = defaultdict[int, list[Answer]](list)
    for number, comparison in enumerate(table["comparison"].to_pylist()):
        if rows[number]:
            answers[comparison].append(Answer(sides[number], rows[number]))
    each = [[answer] for of in answers.values() for answer in of]
    found = paired(answers.values(), made.rows.with_format("numpy")["input_ids"][:]) if pairs else each
    if not found:
        raise UserError(nothing_to_compare(split, len(answers), pairs))
    of_sides = Counter(answer.side for comparison in found for answer in comparison)
    judged = f"{of_sides[Side.CHOSEN]:,} good and {of_sides[Side.REJECTED]:,} bad answers"
    left_out = len(set(table["comparison"].to_pylist())) - len(found) if pairs else 0
    without = f"; {left_out:,} without two different answers are left out" if left_out else ""
    logger.info(f"{split}: {counted(len(found), 'pair') if pairs else judged}{without}")
    return Compared(made.rows, found)


def paired(comparisons: Iterable[list[Answer]], ids: Sequence[np.ndarray]) -> list[list[Answer]]:
    """Return the comparisons of a chosen and a rejected answer that differ, also where they were cut."""
    pairs = [sorted(answers) for answers in comparisons if len(answers) == 2]
    return [pair for pair in pairs if len({tuple(ids[row].tobytes() for row in answer.rows) for answer in pair}) == 2]


def nothing_to_compare(split: str, comparisons: int, pairs: bool) -> str:
    """Return what a split lacks, and what may be done."""
    if pairs and comparisons:
        return (
            f"{split} has {counted(comparisons, 'judgement')} of one answer, and no pair of two that differ, which dpo "
            "and orpo learn from; take train=kto"
        )
    return f"{split} has no answers that are compared or judged; raise data.{split}, or add some to the data"


def tokenized(path: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, loss_on: str) -> Tokenized:
    """Return the rows of a split's file; what they are is kept until the same split is read otherwise.

    A tokenizer is known by itself, whose vocabulary nobody changes once it is loaded, and by its template.
    """
    key = (sha256(path), tokenizer, tokenizer.chat_template, max_length, loss_on)
    return TOKENIZED[path].get(key, lambda: tokenize(path, tokenizer, max_length, loss_on))


def tokenize(path: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, loss_on: str) -> Tokenized:
    """Return the rows of a split's file, from the cache of `datasets` where they are there."""
    conversations = Dataset.from_parquet(str(path))

    def label(batch: dict[str, list[list[Message]]], indices: list[int]) -> dict[str, list[object]]:
        pairs = zip(indices, batch["messages"], strict=True)
        rows = [
            row | {"conversation": index}
            for index, messages in pairs
            for row in labelled(tokenizer, messages, max_length, loss_on)
        ]
        return {key: [row[key] for row in rows] for key in FEATURES}

    rows = conversations.map(
        label,
        batched=True,
        with_indices=True,
        remove_columns=conversations.column_names,
        features=FEATURES,
        new_fingerprint=cache_name(path, tokenizer, max_length, loss_on),
        desc=f"tokenizing {path.stem}",
    )
    learnt = rows.filter(lambda learns: learns, input_columns="learns")
    return Tokenized(learnt.select_columns(["input_ids", "labels", "conversation"]), tally_of(rows, conversations))


def cache_name(split: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, loss_on: str) -> str:
    """Return what rows are called in the cache of `datasets`, by all that they depend on.

    Left to itself, `datasets` pickles the tokenizer: 4 s a split for the 262,144 tokens of Gemma.
    """
    parts = [version("transformers"), *sha256(split), code_digest(*CODE), tokenizer.backend_tokenizer.to_str()]
    parts.append(json.dumps([tokenizer.chat_template, tokenizer.init_kwargs, max_length, loss_on], default=str))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def labelled(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], max_length: int, loss_on: str
) -> Iterator[LabelledRow]:
    """Yield the rows of a conversation, with what became of each.

    One without tokens for a conversation that is refused.
    """
    controls = control.found(tokenizer, messages).total()
    try:
        # One more than fits, to see what is cut; a plain text goes on in the next row.
        encoded = encode(tokenizer, messages, max_length if is_text(messages) else max_length + 1, loss_on)
    except RefusedError as refused:
        yield {
            "input_ids": [], "labels": [], "cut": False, "learns": False, "refused": str(refused), "controls": controls,
        }  # fmt: skip
        return
    for ids, mask in encoded:
        labels = [i if is_learnt else IGNORED for i, is_learnt in zip(ids[:max_length], mask, strict=False)]
        yield {
            "input_ids": ids[:max_length],
            "labels": labels,
            "cut": len(ids) > max_length,
            # The first token is predicted from nothing, so it never counts.
            "learns": any(i != IGNORED for i in labels[1:]),
            "refused": "",
            "controls": controls,
        }


def tally_of(rows: Dataset, conversations: Dataset) -> Tally:
    """Return what the rows of conversations say became of them."""
    made, learnt, cut = Counter[int](), set[int](), set[int]()
    for index, was_cut, learns in zip(rows["conversation"], rows["cut"], rows["learns"], strict=True):
        made[index] += 1
        cut |= {index} if was_cut else set()
        learnt |= {index} if learns else set()
    refusals = Refusals()
    for index, reason in zip(rows["conversation"], rows["refused"], strict=True):
        if reason:
            refusals.add(index + 1, conversations[index]["messages"], reason)
    several = sum(count > 1 for count in made.values())
    unlearnt = len(conversations) - len(learnt) - refusals.total()
    pairs = zip(rows["conversation"], rows["controls"], strict=True)
    controls = len({index for index, count in pairs if count})
    return Tally(len(conversations), len(rows), several, len(cut), unlearnt, refusals, controls)


def described(split: str, tally: Tally, max_length: int) -> str:
    """Return one line about a split."""
    line = (
        f"{split}: {counted(tally.conversations, 'conversation')}, {tally.cut} cut at {max_length} tokens, "
        f"{tally.unlearnt} left out without a token of the assistant"
    )
    if tally.refusals.total():
        line += f", {tally.refusals}, and left out"
    if tally.controls:
        line += f"; {tally.controls} with control tokens in their words, which stay text"
    if tally.several:
        line += f"; {tally.several} make several rows, {tally.rows} in all"
    return line


def require_enough(split: str, tally: Tally, max_length: int, max_truncated: float) -> None:
    """Refuse a split of which too much is lost.

    Raises:
        UserError: nothing is left to learn, or more is cut or left out than `max_truncated` allows.
    """
    total, refused = tally.conversations, tally.refusals.total()
    if refused and (refused == total or refused / total > max_truncated):
        raise UserError(
            f"{refused / total:.1%} of the {split} rows: {tally.refusals}, and train.max_truncated"
            f" allows {max_truncated:.1%}; take them out of the data, or set model.chat_template to one that takes them"
        )
    if tally.unlearnt + refused == total:
        raise UserError(f"no {split} row has an assistant token within train.max_length {max_length}; raise it")
    worst = max(tally.cut, tally.unlearnt)
    if worst / total > max_truncated:
        raise UserError(
            f"{worst / total:.1%} of the {split} rows ({worst} of {total}) are cut or left out at "
            f"train.max_length {max_length}, and train.max_truncated allows {max_truncated:.1%}; raise one of them"
        )
