"""GGUF files as lm-evaluation-harness asks them (https://github.com/EleutherAI/lm-evaluation-harness, MIT).

    python -m llama.harness --model tunesmith --model_args path=FILE.gguf --tasks arc_easy

is `lm_eval` with one model more; Python code that imports this module can name it too. Prompts become the tokens that
the harness's own class for Transformers (`hf`) gives to a model with the same tokenizer.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import cast

import llama_cpp
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import has_bos_prefix, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from common.errors import UserError
from llama.batch import Batch
from llama.cpus import usable_cpus
from llama.errors import RequestError
from llama.model import LlamaModel, Weights
from llama.prompts import Prompts
from llama.scoring import Scorer, Text
from llama.tokenizer import Tokenizer, value
from llama.turn import Piece, Turn
from llama.types import Message, Sampling

SLOTS = 8  # texts that are gone on with at once: more of them share a pass over the weights
CELLS = 32_768  # tokens that all of them have room for, where the longest does not need more
MOST_TOKENS = 256  # of what is gone on with, where a task does not say it

Encoded = tuple[tuple[str, str] | None, list[int], list[int]]  # texts, and the tokens of context and continuation


@register_model("tunesmith")
class GGUF(TemplateLM):
    """A GGUF file, computed by the llama.cpp that serves."""

    def __init__(
        self,
        path: str | Weights | None = None,
        max_length: int | None = None,
        prefix_token_id: int | None = None,
        batch_size: object = None,
        max_batch_size: object = None,
        device: object = None,
        **others: object,
    ) -> None:
        """Load it.

        Args:
            path: the file, or its weights, which must outlive this.
            max_length: tokens of context and continuation; of longer ones the beginning is cut off. As many as the
                model was trained for at most.
            prefix_token_id: what stands before a continuation without a context; BOS, or EOS where there is none.
            batch_size: taken since the harness hands it to every model; what is decoded at once follows from the texts.
            max_batch_size: as `batch_size`.
            device: as `batch_size`.
            others: what somebody took for an argument.

        Raises:
            UserError: the file cannot be loaded, or an argument is none or out of range.
        """
        super().__init__()
        if others or not path:
            unknown = f"no {', '.join(others)}" if others else "the path of a GGUF file"
            raise UserError(f"the model tunesmith takes {unknown}: path=FILE.gguf, max_length and prefix_token_id")
        if isinstance(path, str) and not Path(path).is_file():
            raise UserError(f"path is {path}, which is no file here")
        self._weights = path if isinstance(path, Weights) else Weights(Path(path))
        self._tokenizer = Tokenizer(self._weights.model)
        trained = llama_cpp.llama_model_n_ctx_train(self._weights.model)
        self.max_length = min(_whole("max_length", max_length, least=1), trained) if max_length is not None else trained
        last = llama_cpp.llama_vocab_n_tokens(self._weights.vocabulary) - 1
        self._prefix = None if prefix_token_id is None else _whole("prefix_token_id", prefix_token_id, most=last)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return llama_cpp.llama_vocab_eos(self._weights.vocabulary)

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without a context."""
        if self._prefix is not None:
            return self._prefix
        named = value(self._weights.model, "tokenizer.ggml.bos_token_id")  # llama.cpp has one for files without, too
        return self.eot_token_id if named is None else int(named)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        """Return token ids, with what the model wants around a text unless it begins with that or `False` is said."""
        if add_special_tokens is None:
            add_special_tokens = not has_bos_prefix(string, self._written(self.prefix_token_id))
        return self._tokenizer.read(string, add_special_tokens)

    def _written(self, token: int) -> str:
        return llama_cpp.llama_vocab_get_text(self._weights.vocabulary, token).decode()

    def _loglikelihood_tokens(
        self, requests: Sequence[Encoded], disable_tqdm: bool = False, **_: object
    ) -> list[tuple[float, bool]]:
        texts = [self._text(context, continuation) for _, context, continuation in requests]
        found: list[tuple[float, bool]] = [(0.0, True)] * len(texts)
        if not texts:
            return found
        with Scorer(self._weights, max(len(text.ids) for text in texts)) as scorer:
            judged = tqdm(scorer.likelihoods(texts), "log-likelihoods", len(texts), disable=disable_tqdm)
            for number, likelihood in judged:
                found[number] = likelihood.log, likelihood.greedy
                if request := requests[number][0]:
                    self.cache_hook.add_partial("loglikelihood", request, found[number])
        return found

    def _text(self, context: list[int], continuation: list[int]) -> Text:
        if not 0 < len(continuation) <= self.max_length:
            raise UserError(
                f"a task has a continuation of {len(continuation)} tokens, of a model that reads 1 to {self.max_length}"
            )
        return Text((context + continuation)[-(self.max_length + 1) :], len(continuation))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of whole texts, in windows where they are longer than the context."""
        windows = [list(self._windows(request.args[0])) for request in requests]
        found = iter(self._loglikelihood_tokens([each for some in windows for each in some], disable_tqdm))
        totals = [sum(next(found)[0] for _ in some) for some in windows]
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def _windows(self, text: str) -> Iterator[Encoded]:
        tokens = self.tok_encode(text)
        for window in get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, context_len=1):
            yield (None, *make_disjoint_window(window))

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return what the model goes on with after each text, up to one of the texts that end it."""
        asked = [self._asked(*request.args) for request in requests]
        order = sorted(range(len(asked)), key=lambda number: asked[number][0])  # what begins alike after one another
        said = [""] * len(asked)
        with self._batch(asked) as batch, tqdm(desc="generations", total=len(asked), disable=disable_tqdm) as shown:

            def turn(number: int) -> Turn:
                def take(piece: Piece | Exception) -> None:
                    said[number] += cast(Piece, piece).text
                    shown.update(cast(Piece, piece).finish is not None)

                prompt, sampling = asked[number]
                one = Turn(self.tokenizer_name, "", sampling, take)
                one.go_on_from(prompt, batch.model)
                return one

            for _ in batch.run_all(map(turn, order)):
                pass
        for request, text in zip(requests, said, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return said

    def _asked(self, text: str, options: dict[str, object]) -> tuple[list[int], Sampling]:
        """Return a text as tokens, less the first ones where they leave no room, and how its answer is drawn."""
        sampling = _sampling(options)
        room = self.max_length - sampling.max_tokens
        if room <= 0:
            raise UserError(f"a task asks for {sampling.max_tokens} tokens of a model that has {self.max_length}")
        return (self.tok_encode(text) or [self.prefix_token_id])[-room:], sampling

    @contextmanager
    def _batch(self, asked: Sequence[tuple[list[int], Sampling]]) -> Iterator[Batch]:
        """Yield what answers several at once, freed at the end."""
        longest = max((len(prompt) + sampling.max_tokens for prompt, sampling in asked), default=1)
        slots = max(min(SLOTS, CELLS // longest), 1)
        with closing(Batch(LlamaModel(self._weights, longest, usable_cpus(), slots, chats=False))) as batch:
            yield batch

    @property
    def tokenizer_name(self) -> str:
        """What the harness keeps requests under."""
        return self._weights.path.stem

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the file's chat template, which has no other name than its own."""
        template = llama_cpp.llama_model_chat_template(self._weights.model, None)
        return template.decode() if template and chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return a conversation as its file's template writes it, with or without what an answer begins with."""
        try:
            return self._prompts.text(cast(list[Message], chat_history), add_generation_prompt)
        except RequestError:
            without = [message for message in chat_history if message["role"] != "system"]
            if len(without) == len(chat_history):
                raise
            return self.apply_chat_template(without, add_generation_prompt)  # as the harness does for `hf`

    @cached_property
    def _prompts(self) -> Prompts:
        return Prompts(self._weights.model, self.max_length)


def _whole(name: str, given: object, least: int = 0, most: int | None = None) -> int:
    """Return an argument that has to be a whole number."""
    if not isinstance(given, int) or given < least or (most is not None and given > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most:,}"
        raise UserError(f"{name} is {given!r}; it may be a whole number, {bounds}")
    return given


def _sampling(options: dict[str, object]) -> Sampling:
    """Return how an answer is drawn, by what a task says of it."""
    asked = dict(normalize_gen_kwargs(options, MOST_TOKENS))
    drawn, temperature = asked.pop("do_sample"), asked.pop("temperature", 0.0)
    sampling = Sampling(
        max_tokens=asked.pop("max_gen_toks"),
        temperature=temperature if drawn else 0.0,
        seed=0,
        top_p=asked.pop("top_p", 1.0),
        stop=tuple(filter(None, asked.pop("until"))),
    )
    if asked:
        raise UserError(f"a task asks for {', '.join(asked)} in its generation_kwargs, which a GGUF is not asked with")
    return sampling


def main() -> None:
    """Be the harness's own command."""
    try:
        cli_evaluate()
    except (UserError, RequestError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
