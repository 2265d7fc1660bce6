"""One GGUF model in llama.cpp: load, render a conversation, generate. Not for two threads at once.

It goes below llama-cpp-python's `Llama`, which keeps the last conversation's state and hides the steps between tokens.
"""

import ctypes
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self

import jinja2
import llama_cpp
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from serve.errors import RequestError, UserError
from serve.limits import Message, Sampling

PREFILL_CHUNK = 64  # tokens of a prompt decoded at a time: a cancel waits for one chunk at most
TOP_K, TOP_P, MIN_P = 40, 0.95, 0.05  # llama.cpp's own defaults; they act above temperature 0
RANDOM_SEED = llama_cpp.LLAMA_DEFAULT_SEED  # llama.cpp's word for "draw a seed"

_ERROR = 4  # GGML_LOG_LEVEL_ERROR
_errors: list[str] = []  # what llama.cpp has complained of since it was last asked to load something


@llama_cpp.llama_log_callback
def _keep_errors(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    """Take llama.cpp's log: its hundred lines on each load stay out of ours, its errors explain a failed one."""
    if level == _ERROR:
        _errors.append(text.decode(errors="replace").strip())


llama_cpp.llama_log_set(_keep_errors, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


def check_file(path: Path) -> None:
    """Raise UserError for a file that is no GGUF or ends before its last tensor. Reads the header, not the weights."""
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    llama_cpp.llama_model_free(load(path, params))


def last_error() -> str:
    """What llama.cpp complained of first since this was last asked, less its function's name."""
    reason = _errors[0].partition(": ")[2] if _errors else "llama.cpp gives no reason"
    _errors.clear()
    return reason


def load(path: Path, params: llama_cpp.llama_model_params) -> "llama_cpp.llama_model_p":
    """Load a file. Raises UserError with llama.cpp's reason."""
    _errors.clear()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if model is None:
        size = path.stat().st_size if path.exists() else 0
        raise UserError(f"{path} ({size} bytes) is no whole GGUF model: {last_error()}; export it again or remove it")
    return model


class LlamaModel:
    """A model's weights and one context over them."""

    def __init__(self, path: Path, context: int, threads: int) -> None:
        """Load the model for up to `context` tokens of prompt and answer, or as many as it was trained for.

        Raises UserError for a file that cannot be loaded or has no chat template.
        """
        with ExitStack() as stack:
            self._model = load(path, llama_cpp.llama_model_default_params())
            stack.callback(llama_cpp.llama_model_free, self._model)
            self._vocab = llama_cpp.llama_model_get_vocab(self._model)
            self.context = min(context, llama_cpp.llama_model_n_ctx_train(self._model))
            self._formatter = self._chat_template(path)
            self._context = llama_cpp.llama_init_from_model(self._model, self._context_params(threads))
            if self._context is None:
                raise UserError(f"no memory for {self.context} tokens of context with {path}: lower SERVE_CONTEXT")
            stack.callback(llama_cpp.llama_free, self._context)
            self._resources = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the context and the weights; a second call does nothing."""
        self._resources.close()

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The conversation as token ids, ready for the assistant's answer.

        No BOS is added: the chat template writes the one that it wants, as it did in training. Raises RequestError for
        a conversation that the template refuses or that leaves no room for an answer.
        """
        try:
            text = self._formatter(messages=list(messages)).prompt  # type: ignore[arg-type]
        except (ValueError, jinja2.TemplateError) as error:
            raise RequestError(f"The model's chat template refuses this conversation: {error}") from None
        tokens = self._tokenize(text.encode(errors="replace"))
        if len(tokens) >= self.context:
            raise RequestError(
                f"The conversation takes {len(tokens)} tokens, and the model's context holds {self.context} with the"
                " answer: shorten it or start anew."
            )
        return tokens

    def prefill(self, prompt: Sequence[int]) -> Generator[int]:
        """Decode the prompt; yields the number of tokens done after each chunk, so that the caller may stop there."""
        # Nothing is kept of the request before: reusing its state could change the last bits of the logits, and an
        # answer is to depend on its own conversation alone.
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        for start in range(0, len(prompt), PREFILL_CHUNK):
            chunk = prompt[start : start + PREFILL_CHUNK]
            self._decode(chunk)
            yield start + len(chunk)

    def generate(self, sampling: Sampling, limit: int) -> Generator[int]:
        """Yield up to `limit` token ids after a prefill; ends before an end-of-turn token.

        Nothing runs between two `next` calls: dropping the iterator stops the generation.
        """
        with closing(_Sampler(sampling)) as sampler:
            for _ in range(limit):
                token = llama_cpp.llama_sampler_sample(sampler.chain, self._context, -1)
                if llama_cpp.llama_vocab_is_eog(self._vocab, token):
                    return
                yield token
                self._decode([token])

    def piece(self, token: int) -> bytes:
        """A token's text, which may be a part of a character; empty for special tokens."""
        buffer = ctypes.create_string_buffer(256)
        length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:length] if length > 0 else b""

    def _tokenize(self, text: bytes) -> list[int]:
        room = len(text) + 1  # no token is shorter than a byte
        tokens = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self._vocab, text, len(text), tokens, room, False, True)
        return tokens[:count]

    def _decode(self, tokens: Sequence[int]) -> None:
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        status = llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(array, len(tokens)))
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")

    def _context_params(self, threads: int) -> llama_cpp.llama_context_params:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = self.context
        params.n_batch = params.n_ubatch = PREFILL_CHUNK
        params.n_threads = params.n_threads_batch = threads
        params.n_seq_max = 1
        return params

    def _chat_template(self, path: Path) -> Jinja2ChatFormatter:
        """The GGUF's chat template; the formatter passes over the `{% generation %}` marks that training needs."""
        template = llama_cpp.llama_model_chat_template(self._model, None)
        if template is None:
            raise UserError(f"{path} has no chat template, so it cannot chat: export it with one or remove it")
        try:
            return Jinja2ChatFormatter(
                template.decode(),
                eos_token=self._special(llama_cpp.llama_vocab_eos(self._vocab)),
                bos_token=self._special(llama_cpp.llama_vocab_bos(self._vocab)),
            )
        except jinja2.TemplateSyntaxError as error:
            raise UserError(f"{path} has a broken chat template: {error}") from None

    def _special(self, token: int) -> str:
        return llama_cpp.llama_vocab_get_text(self._vocab, token).decode() if token >= 0 else ""


class _Sampler:
    """llama.cpp's chain of samplers for one answer."""

    def __init__(self, sampling: Sampling) -> None:
        self.chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for sampler in self._samplers(sampling):
            llama_cpp.llama_sampler_chain_add(self.chain, sampler)

    def _samplers(self, sampling: Sampling) -> Iterator["llama_cpp.llama_sampler_p"]:
        if sampling.temperature == 0:
            yield llama_cpp.llama_sampler_init_greedy()
            return
        yield llama_cpp.llama_sampler_init_top_k(TOP_K)
        yield llama_cpp.llama_sampler_init_top_p(TOP_P, 1)
        yield llama_cpp.llama_sampler_init_min_p(MIN_P, 1)
        yield llama_cpp.llama_sampler_init_temp(sampling.temperature)
        yield llama_cpp.llama_sampler_init_dist(RANDOM_SEED if sampling.seed is None else sampling.seed)

    def close(self) -> None:
        llama_cpp.llama_sampler_free(self.chain)
