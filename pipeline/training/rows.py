"""Prepared chats as rows of token ids with the assistant's part marked."""

from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from pipeline.errors import UserError
from pipeline.training.chat import encode
from pipeline.training.updates import IGNORED
from serve.words import counted

PREPARED = Path("data/prepared")


def supervised(split: str, tokenizer: PreTrainedTokenizerBase, max_length: int, max_truncated: float = 1.0) -> Dataset:
    """A prepared split as `input_ids` and `labels` of at most `max_length` tokens; says what was cut or left out.

    A conversation in which nothing of the assistant's is left to learn would make an update without a loss.

    Args:
        split: `train` or `validation`.
        tokenizer: with a chat template that marks what the assistant says.
        max_length: in tokens; longer conversations are cut.
        max_truncated: the share of conversations, 0 to 1, that may be cut or left out.

    Raises:
        UserError: the split is missing, no row has anything to learn, or too many are cut.
    """
    path = PREPARED / f"{split}.parquet"
    if not path.is_file():
        raise UserError(f"{path} is missing; run `dvc repro prepare` first")
    rows = Dataset.from_parquet(str(path))

    def label(batch: dict[str, list]) -> dict[str, list]:
        encoded = [encode(tokenizer, messages, max_length + 1) for messages in batch["messages"]]
        labels = [[i if said else IGNORED for i, said in zip(*pair, strict=True)] for pair in encoded]
        return {
            "input_ids": [ids[:max_length] for ids, _ in encoded],
            "labels": [row[:max_length] for row in labels],
            "cut": [len(ids) > max_length for ids, _ in encoded],
            # The first token is predicted from nothing, so it never counts.
            "learns": [any(i != IGNORED for i in row[1:max_length]) for row in labels],
        }

    labelled = rows.map(label, batched=True, remove_columns=rows.column_names, desc=f"tokenizing {split}")
    cut, unlearnt = sum(labelled["cut"]), len(labelled) - sum(labelled["learns"])
    print(
        f"{split}: {counted(len(labelled), 'conversation')}, {cut} cut at {max_length} tokens, "
        f"{unlearnt} left out without a token of the assistant",
        flush=True,
    )
    if unlearnt == len(labelled):
        raise UserError(f"no {split} row has an assistant token within train.max_length {max_length}; raise it")
    share = max(cut, unlearnt) / len(labelled)
    if share > max_truncated:
        raise UserError(
            f"{share:.1%} of the {split} rows ({max(cut, unlearnt)} of {len(labelled)}) are cut or left out at "
            f"train.max_length {max_length}, and train.max_truncated allows {max_truncated:.1%}; raise one of them"
        )
    return labelled.filter(lambda learns: learns, input_columns="learns").remove_columns(["cut", "learns"])
