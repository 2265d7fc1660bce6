"""Whether a GGUF is the model that it was made of: what it says of itself, how it reads texts, and its logits.

Raises `UserError` for the first thing that differs. Nothing is compared by name or date: each check loads the file in
the llama.cpp that serves, and holds it against Transformers and its tokenizer.
"""

import copy
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, cast

import gguf
import llama_cpp
import numpy as np
import torch
from tokenizers import AddedToken, normalizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from common.errors import UserError
from llama.context import CHUNK, Context
from llama.errors import RequestError
from llama.model import Weights, loaded_metadata
from llama.prompts import Prompts
from llama.tokenizer import Tokenizer
from llama.types import Message
from pipeline.gguf.ends import end_ids
from pipeline.gguf.positions import context_difference, rope_difference
from pipeline.gguf.texts import AWKWARD, CHATS
from pipeline.gguf.tokenizer_json import TokenizerJson, prepend_scheme, read_tokenizer, unknown_steps
from pipeline.models.chat import TODAY, prompt_ids
from pipeline.models.families import gguf_names

Messages = list[dict[str, str]]


class Limits(NamedTuple):
    """How far a file may be from what it is held against."""

    kl: float  # nats a token, at most
    top_1: float  # share of tokens that have the same likeliest one after them, at least


# An unquantized file differs from the float32 original by rounding alone: weights to 16 bit, and what its kernels
# round. starter-m after training: 1e-5 nats in F16, 99.8% of the likeliest tokens the same; with the adapter scaled by
# 1.05 0.01 nats, by 1.2 0.14, left out 2.2. Larger models round more: limits leave room for them.
EXACT = Limits(0.005, 0.95)
# BF16 rounds away much of what training has changed: SmolLM2-135M after 20 steps at 5e-4 is 0.0082 nats from itself,
# and 96.2% are the same.
ROUNDED = Limits(0.05, 0.9)
SAMPLED = 64  # of so many texts of a token, one is read by a file that is quantized; all of them take minutes
TOGETHER = 64  # texts of a token that are read at once
SLICE = 32  # positions compared at once; in float64, a vocabulary of 128k takes 32 MB for them

# Keys of a GGUF, after its architecture's name, that are plain copies of the configuration.
SIZES = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}


@dataclass(frozen=True)
class Original:
    """The Hugging Face side of what is compared."""

    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    tokenizer_json: TokenizerJson
    ends: frozenset[int]  # ids that end an answer
    texts: list[tuple[str, str, list[int]]]  # name, text, ids
    chats: list[tuple[Messages, list[int]]]  # conversations up to an answer, and their ids


@dataclass(frozen=True)
class ExportedFile:
    """A GGUF loaded by llama.cpp, and what it says of itself."""

    weights: Weights
    tokenizer: Tokenizer
    metadata: dict[str, str]


@dataclass(frozen=True)
class Divergence:
    """How near a file's logits are to others on the same tokens."""

    kl: float  # nats a token, of this file from the others
    top_1: float  # share of tokens that have the same likeliest one after them
    perplexity: float  # of this file


def read_original(model: Path, chats: Sequence[Messages] = ()) -> Original:
    """Return the Hugging Face side of a model's folder.

    `chats` are rendered beside CHATS, up to their last question.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(model), trust_remote_code=False)
    config = AutoConfig.from_pretrained(str(model), trust_remote_code=False).get_text_config()
    ends = {*end_ids(model, config.to_dict()), tokenizer.eos_token_id} - {None}
    rendered = ((chat, _rendered(tokenizer, chat)) for chat in [*CHATS, *map(up_to_question, chats)])
    tokenizer_json = read_tokenizer(model)
    return Original(
        config,
        tokenizer,
        tokenizer_json,
        frozenset(ends),
        _read_texts(as_sentencepiece(tokenizer, tokenizer_json), config.vocab_size),
        [(chat, ids) for chat, ids in rendered if ids],
    )


def sampled(original: Original) -> Original:
    """Return the same with a part of the texts, for a file whose tokenizer is a copy of one that read all."""
    return replace(original, texts=[*original.texts[: len(AWKWARD)], *original.texts[len(AWKWARD) :: SAMPLED]])


def up_to_question(chat: Messages) -> Messages:
    """Return the conversation less what comes after its last question."""
    last = max((i for i, message in enumerate(chat) if message["role"] == "user"), default=len(chat) - 1)
    return chat[: last + 1]


def verify(path: Path, original: Original) -> None:
    """Check all but the logits of a GGUF.

    Raises:
        UserError: it cannot be loaded, or something differs from the original; the message names file and check.
    """
    with opened(path) as file:
        check_file(file, original)


def check_file(file: ExportedFile, original: Original) -> None:
    """Check all but the logits of a GGUF that is loaded.

    Raises:
        UserError: something differs from the original; the message names file and check.
    """
    for name, check in CHECKS.items():
        if difference := check(file, original):
            raise UserError(refusal(file.weights.path, name, difference))


def compare(
    source: Path | Weights,
    rows: Sequence[Sequence[int]],
    logits: np.ndarray,
    *,
    keep: bool = False,
    adapter: Path | None = None,
    within: bool = True,
) -> Divergence:
    """Return how near a GGUF's logits are to others.

    Args:
        source: the GGUF, or its weights.
        rows: token ids, at least two a row; of a longer one than CHUNK, the last CHUNK positions are compared.
        logits: the others', float32 [positions, vocabulary]: tokens less one a row.
        keep: write this file's into `logits`, in their place.
        adapter: a GGUF adapter to lay on the file.
        within: whether 16 bits hold what the others' model computes; else logits that are no numbers are as they must
            be, and all figures nan: the evaluation's verdict then fails.

    Raises:
        UserError: the file or the adapter cannot be loaded, or its logits are no numbers.
    """
    totals, done = np.zeros(3), 0
    with Context(source, max(CHUNK, *map(len, rows)), adapter=adapter) as context:
        for ids in rows:
            for positions, mine in context.logits(ids, range(max(0, len(ids) - 1 - CHUNK), len(ids) - 1)):
                others = logits[done : done + len(positions)]
                if not np.isfinite(mine).all():
                    if not within:
                        return Divergence(math.nan, math.nan, math.nan)
                    raise UserError(refusal(adapter or context.path, "logits", "some are no finite numbers"))
                for at in range(0, len(positions), SLICE):
                    targets = [ids[position + 1] for position in positions[at : at + SLICE]]
                    totals += _differences(others[at : at + SLICE], mine[at : at + SLICE], targets)
                if keep:
                    others[:] = mine
                done += len(positions)
    kl, same, nats = (totals / done).tolist()
    return Divergence(max(kl, 0.0), same, math.exp(min(nats, 700.0)))  # above which a float has no room


def check_divergence(path: Path, likeness: Divergence, limits: Limits = EXACT, check: str = "logits") -> None:
    """Refuse an unquantized file, or an adapter, that does not say what the trained model says.

    Raises:
        UserError: KL or top-1 is beyond its limit.
    """
    if likeness.kl > limits.kl or likeness.top_1 < limits.top_1:
        raise UserError(
            refusal(
                path,
                check,
                f"{likeness.kl:.3g} nats a token from the trained model (at most {limits.kl}), and"
                f" {likeness.top_1:.1%} of the likeliest tokens are the same (at least {limits.top_1:.0%})",
            )
        )


def refusal(path: Path, check: str, difference: str) -> str:
    """Return the line that an export ends with."""
    return f"{path.name} is not the model that it was made of; {check}: {difference}; none of this export is kept"


@contextmanager
def opened(path: Path) -> Iterator[ExportedFile]:
    """Yield a GGUF in llama.cpp, all of its tensors read and found to be numbers.

    Raises:
        UserError: llama.cpp does not load it.
    """
    try:
        weights = Weights(path, mapped=True, check_tensors=True)
    except UserError as error:
        raise UserError(refusal(path, "loading", str(error))) from error
    with weights:
        yield ExportedFile(weights, Tokenizer(weights.model), loaded_metadata(weights.model))


def _architecture(file: ExportedFile, original: Original) -> str | None:
    found, kind = file.metadata["general.architecture"], original.config.model_type
    expected = architecture(kind)
    if expected is None:
        name = file.weights.path.name
        print(f"{name} is {found} in llama.cpp, which nothing here says of {kind}: its name was not checked")
    elif found != expected:
        return f"it is {found}, the original is {kind}"
    latent = f"{found}.attention.kv_lora_rank" in file.metadata  # whose keys llama.cpp has as one head's
    for key, attribute in SIZES.items():
        value = file.metadata.get(f"{found}.{key}")
        by_layer = value is not None and value.startswith("[")
        if not value or by_layer or (latent and key == "attention.head_count_kv"):
            continue
        there = getattr(original.config, attribute, None)
        if isinstance(there, int | float) and not _near(float(value), there):
            return f"{key} is {value}, the original's {attribute} is {there}"
    return None


def architecture(kind: str) -> str | None:
    """Return llama.cpp's name for a model type of Transformers, by a family's row or as the same; None for others."""
    same = {_plain(name): name for name in gguf.MODEL_ARCH_NAMES.values()}
    return gguf_names().get(kind) or same.get(_plain(kind.removesuffix("_text")))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]", "", name)


def _rope(file: ExportedFile, original: Original) -> str | None:
    return rope_difference(file.weights.path, file.weights.model, file.metadata, original.config)


def _context(file: ExportedFile, original: Original) -> str | None:
    return context_difference(file.weights.model, original.config)


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-7)  # metadata are written out with six digits


def _tokens(file: ExportedFile, original: Original) -> str | None:
    count = llama_cpp.llama_vocab_n_tokens(file.weights.vocabulary)
    if count != original.config.vocab_size:
        return f"{count} tokens, the original has {original.config.vocab_size}"
    for token, index in sorted(original.tokenizer.get_vocab().items(), key=lambda pair: pair[1]):
        if index >= count:  # the tokenizer has more than the model
            break
        text = llama_cpp.llama_vocab_get_text(file.weights.vocabulary, index).decode(errors="replace")
        # The converter writes added tokens as they read, not as they are stored.
        if text not in (token, token.replace("▁", " ")) and text != original.tokenizer.decode([index]):
            return f"token {index} is {text!r}, the original's is {token!r}"
    return None


def _special_tokens(file: ExportedFile, original: Original) -> str | None:
    for name, find in (
        ("bos", llama_cpp.llama_vocab_bos),
        ("eos", llama_cpp.llama_vocab_eos),
        ("pad", llama_cpp.llama_vocab_pad),
    ):
        expected, found = getattr(original.tokenizer, f"{name}_token_id"), find(file.weights.vocabulary)
        if expected is not None and expected != found:
            return f"{name} is token {found}, the original's is {expected}"
    return None


def _ends(file: ExportedFile, original: Original) -> str | None:
    deaf = sorted(end for end in original.ends if not llama_cpp.llama_vocab_is_eog(file.weights.vocabulary, end))
    return f"an answer would not end at token {deaf[0]}" if deaf else None


def _template(file: ExportedFile, original: Original) -> str | None:
    found = llama_cpp.llama_model_chat_template(file.weights.model, None)
    expected = original.tokenizer.chat_template
    # A last newline is none of Jinja's: it drops it.
    same = (found.decode() if found else "").rstrip("\n") == (expected or "").rstrip("\n")
    return None if same else "it is not the one that training used"


def _texts(file: ExportedFile, original: Original) -> str | None:
    for name, text, ids in _not_read_together(file, original):
        if file.tokenizer.read(text) != ids:
            unknown = ", ".join(unknown_steps(original.tokenizer_json))
            reason = f": its tokenizer changes texts first ({unknown}), which llama.cpp does not" if unknown else ""
            return f"other token ids than the original's for '{name}'{reason}"
    for text in (AWKWARD["plain"], AWKWARD["empty"]):
        if file.tokenizer.read(text, add_special=True) != original.tokenizer(text)["input_ids"]:
            return "other tokens than the original's are added around a text"
    return None


def _not_read_together(file: ExportedFile, original: Original) -> Iterator[tuple[str, str, list[int]]]:
    """Yield the texts that are to be read one by one: all but those that are read right with added tokens between them.

    llama.cpp looks for each added token in each text that it reads. Gemma 3 has 6,415 of them: its tokens one by one
    take 30 s, with the newline between them, which it has added too, 3 s.
    """
    between, index = min(original.tokenizer.get_added_vocab().items(), key=lambda pair: len(pair[0]), default=("", 0))
    for at in range(0, len(original.texts), TOGETHER):
        group = original.texts[at : at + TOGETHER]
        joined = between.join(text for _, text, _ in group)
        ids = [token for _, _, row in group for token in (index, *row)][1:]
        if not between or file.tokenizer.read(joined) != ids:
            yield from group


def _conversations(file: ExportedFile, original: Original) -> str | None:
    context = llama_cpp.llama_model_n_ctx_train(file.weights.model)
    try:
        with closing(Prompts(file.weights.model, context, TODAY)) as prompts:
            for number, (chat, ids) in enumerate(original.chats, 1):
                if len(ids) < context and prompts.read(cast(list[Message], chat)) != ids:
                    return f"the chat reads conversation {number} as other token ids than training did"
    except (UserError, RequestError) as error:
        return str(error)
    return None


def as_sentencepiece(tokenizer: PreTrainedTokenizerBase, tokenizer_json: TokenizerJson) -> PreTrainedTokenizerBase:
    """Return a tokenizer whose space before a word stands before a space too, as SentencePiece and llama.cpp have it.

    Transformers 5 puts none there for Llama 2 and its like. Texts that begin with a space, or go on with one after a
    special token, are all that differs; where a chat template makes such, the check of conversations says so.
    """
    if prepend_scheme(tokenizer_json) != "always":
        return tokenizer
    changed = copy.deepcopy(tokenizer)
    backend = changed.backend_tokenizer
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return changed


def _read_texts(tokenizer: PreTrainedTokenizerBase, count: int) -> list[tuple[str, str, list[int]]]:
    """Return AWKWARD and the text of every token by itself, which uses every merge there is.

    Args:
        tokenizer: the original's.
        count: tokens of the model; a tokenizer may have more, such as one for images.
    """
    ids = sorted(index for index in tokenizer.get_vocab().values() if index < count)
    alone = {f"token {index}": str(tokenizer.decode([index])) for index in ids}
    # Gemma's tokens for several spaces are found by Transformers where a text has their very signs, which none has.
    signs = [token for token in tokenizer.get_added_vocab() if set(token) == {"▁"}]
    awkward = {name: text for name, text in AWKWARD.items() if not any(sign in text for sign in signs)}
    greedy = [token for token in tokenizer.added_tokens_decoder.values() if _takes_more(token)]
    around = {f"around {token.content}": f"a \n{token.content}\n b{token.content}c" for token in greedy}
    texts = {**awkward, **around, **alone}
    rows = tokenizer(list(texts.values()), add_special_tokens=False)["input_ids"]
    return [(name, text, row) for (name, text), row in zip(texts.items(), rows, strict=True)]


def _takes_more(token: AddedToken) -> bool:
    """Return whether what is around an added token counts: spaces that it takes along, or letters that make it none."""
    return token.lstrip or token.rstrip or token.single_word


def _rendered(tokenizer: PreTrainedTokenizerBase, chat: Messages) -> list[int] | None:
    """Return a conversation up to the answer as training has it; None where the template refuses it."""
    try:
        return prompt_ids(tokenizer, chat)
    except UserError:
        return None


def _differences(others: np.ndarray, mine: np.ndarray, targets: Sequence[int]) -> np.ndarray:
    """Sum over positions of the KL divergence, of agreements on the likeliest token, and of nats at the targets.

    Args:
        others: logits [positions, vocabulary], those that are approached.
        mine: logits [positions, vocabulary].
        targets: a token id for each position.
    """
    # In float64: a float32 sum over 128k terms has errors like those that are looked for.
    p = torch.log_softmax(torch.from_numpy(np.array(others, dtype=np.float64)), dim=-1)
    q = torch.log_softmax(torch.from_numpy(mine.astype(np.float64)), dim=-1)
    kl = (p.exp() * (p - q)).sum()
    same = (p.argmax(-1) == q.argmax(-1)).sum()
    return np.array([kl.item(), same.item(), -q[torch.arange(len(targets)), torch.tensor(targets)].sum().item()])


CHECKS: dict[str, Callable[[ExportedFile, Original], str | None]] = {
    "architecture": _architecture,
    "rotary embedding": _rope,
    "context": _context,
    "vocabulary": _tokens,
    "special tokens": _special_tokens,
    "ends of an answer": _ends,
    "chat template": _template,
    "texts": _texts,
    "conversations": _conversations,
}
