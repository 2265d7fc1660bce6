"""What programs may ask for, field by field, and what it means to the engine."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, cast

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, field_validator

from llama.errors import RequestError
from llama.types import BareText, Chat, Infill, Message, Prompt, Sampling, TokenIds
from serve.http.answer_forms import FormFields
from serve.http.fields import (
    CHAT_REFUSED,
    HARMLESS,
    MESSAGE_HARMLESS,
    MESSAGE_REFUSED,
    REFUSED,
    STREAM_HARMLESS,
    STREAM_REFUSED,
    Unasked,
    check_fields,
)
from serve.http.tool_fields import ToolFields, written_calls

COMPLETION_TOKENS = 16  # of a plain completion that asks for no number, as with OpenAI
SEEDS = 2**32 - 1  # that llama.cpp knows: any other whole number stands for one of them
MOST_CHOICES = 128  # that one prompt may be answered with, as with OpenAI
ALL_IT_MAY = -1  # tokens, as llama.cpp has it; as a seed: another answer each time
DRAWN_ALIKE = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty")  # as Sampling names them


def _whole(value: object) -> object:
    """Take 8.0 for 8, which languages without whole numbers write."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]


class Fields(BaseModel):
    """Values are of their types and not converted; what is not named is looked up in fields.py."""

    model_config = ConfigDict(strict=True, extra="allow")


class StreamOptions(Fields):
    """How a stream is written."""

    include_usage: bool | None = None


class CompletionRequest(Fields, FormFields):
    """What both kinds of completion take; the engine checks the ranges."""

    refused: ClassVar[Mapping[str, Unasked]] = REFUSED

    model: str
    max_tokens: Whole | None = None
    min_tokens: Whole | None = None
    ignore_eos: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Whole | None = None
    min_p: float | None = None
    seed: Whole | None = None
    stop: list[str] | None = None
    stop_token_ids: list[Whole] | None = None
    include_stop_str_in_output: bool | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repeat_penalty: float | None = None
    repetition_penalty: float | None = None  # vLLM's name for it
    logit_bias: dict[str, float] | None = None
    n: Whole | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _listed(cls, stop: object) -> object:
        return [stop] if isinstance(stop, str) else stop

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with its figures."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def choices(self) -> int:
        """Answers to each prompt. Raises RequestError."""
        choices = 1 if self.n is None else self.n
        if not 1 <= choices <= MOST_CHOICES:
            raise RequestError(f"n must be a whole number from 1 to {MOST_CHOICES}, not {choices}.", param="n")
        return choices

    def check(self) -> None:
        """Raise RequestError for a field that asks for what there is not."""
        check_fields(self.model_extra, HARMLESS, self.refused)
        if self.stream_options:
            check_fields(self.stream_options.model_extra, STREAM_HARMLESS, STREAM_REFUSED, "stream_options.")

    def sampling(self, usual: int, most: int, logprobs: int | None) -> Sampling:
        """Return how the answer is drawn: as asked, else as is usual here.

        Args:
            usual: tokens of an answer, where no number is asked for.
            most: tokens of the longest answer; whoever asks for more gets so many.
            logprobs: tokens whose chances are told beside the drawn one's; None for none.

        Raises RequestError.
        """
        asked = usual if self.max_tokens is None else self.max_tokens
        given: dict[str, Any] = {name: getattr(self, name) for name in DRAWN_ALIKE}
        given["max_tokens"] = most if asked == ALL_IT_MAY else min(asked, most)
        given["seed"] = None if self.seed is None or self.seed == ALL_IT_MAY else self.seed % SEEDS
        given["top_k"] = 0 if self.top_k == -1 else self.top_k  # vLLM's word for all
        given["repeat_penalty"] = self.repetition_penalty if self.repeat_penalty is None else self.repeat_penalty
        given["stop"], given["stop_tokens"] = tuple(self.stop or ()), tuple(self.stop_token_ids or ())
        given |= {"min_tokens": self.min_tokens, "ignore_eos": self.ignore_eos}
        given["keep_stop"] = self.include_stop_str_in_output
        given["logit_bias"] = tuple((_token(token), bias) for token, bias in (self.logit_bias or {}).items())
        given["logprobs"] = logprobs
        given["form"] = self.form()
        return Sampling(**{name: value for name, value in given.items() if value is not None})


class ChatMessage(Fields):
    """One turn of a conversation; its content is a text or a list of parts that are texts."""

    role: str
    content: str | None = None  # an assistant's turn may have none
    name: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[object] | None = None
    tool_call_id: str | None = None
    function_call: dict[str, object] | None = None  # OpenAI's older name for a single call

    @field_validator("role")
    @classmethod
    def _known(cls, role: str) -> str:
        return {"developer": "system", "function": "tool"}.get(role, role)

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, content: object) -> object:
        if not isinstance(content, list):
            return content
        if not all(isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in content):
            raise ValueError("only parts of type text are supported")
        return "\n".join(part["text"] for part in content)

    def message(self, where: str) -> Message:
        """Return it for the engine. Raises RequestError."""
        check_fields(self.model_extra, MESSAGE_HARMLESS, MESSAGE_REFUSED, f"{where}.")
        if self.content is None and self.role != "assistant":
            param = f"{where}.content"
            raise RequestError(f"{param}: a text is required.", "missing_required_parameter", param)
        named = {"name": self.name, "reasoning_content": self.reasoning_content, "tool_call_id": self.tool_call_id}
        named["tool_calls"] = self._calls(where)
        beside = {name: text for name, text in named.items() if text is not None}
        return cast(Message, {"role": self.role, "content": self.content or "", **beside})

    def _calls(self, where: str) -> str | None:
        """Return what it calls, as JSON. Raises RequestError."""
        older: list[object] = [{"function": self.function_call}] if self.function_call else []
        fields = {"tool_calls": self.tool_calls, "function_call": older}
        given = {name: calls for name, calls in fields.items() if calls}
        if self.tool_call_id is not None and self.role != "tool":
            given["tool_call_id"] = []
        wrong = [name for name in given if name == "tool_call_id" or self.role != "assistant" or len(given) > 1]
        if wrong:
            param = f"{where}.{wrong[-1]}"
            raise RequestError(f"{param} does not belong there.", param=param)
        return next((written_calls(calls, f"{where}.{name}") for name, calls in given.items()), None)


class _Conversation(Fields, ToolFields):
    """A conversation, and how its template writes it."""

    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, bool | int | float | str] | None = None
    reasoning_effort: str | None = None
    enable_thinking: bool | None = None

    def chat(self, turns: list[ChatMessage]) -> Chat:
        """Return it for the engine. Raises RequestError."""
        messages = [message.message(f"messages[{place}]") for place, message in enumerate(turns)]
        switches, goes_on = self.chat_template_kwargs or {}, self._goes_on(messages)
        effort, thinks = self.reasoning_effort, self.enable_thinking
        return Chat(messages, goes_on, switches, effort, thinks, self.callable())

    def _goes_on(self, messages: list[Message]) -> bool:
        """Return whether the last message is to be gone on with: an assistant's is, unless asked otherwise."""
        ends_open = bool(messages) and messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]
        if self.continue_final_message and (not ends_open or self.add_generation_prompt):
            why = "add_generation_prompt asks for a new turn" if ends_open else "the last message is not an assistant's"
            raise RequestError(f"continue_final_message: {why}.", param="continue_final_message")
        if self.add_generation_prompt is False and not ends_open:
            text = "add_generation_prompt: false needs a last message of the assistant's, to go on with."
            raise RequestError(text, param="add_generation_prompt")
        return ends_open and self.continue_final_message is not False and self.add_generation_prompt is not True


class ChatRequest(CompletionRequest, _Conversation):
    """A conversation to answer."""

    refused: ClassVar[Mapping[str, Unasked]] = REFUSED | CHAT_REFUSED

    messages: list[ChatMessage]
    max_completion_tokens: Whole | None = None
    logprobs: bool | None = None
    top_logprobs: Whole | None = None
    reasoning_format: Literal["auto", "deepseek", "none"] | None = None

    def drawn(self, most: int) -> Sampling:
        """Return how the answer is drawn; `most` are the tokens of the longest. Raises RequestError."""
        if self.max_completion_tokens is not None:
            self.max_tokens = self.max_completion_tokens
        if self.top_logprobs and not self.logprobs:
            raise RequestError("top_logprobs needs logprobs: true.", param="top_logprobs")
        return self.sampling(most, most, (self.top_logprobs or 0) if self.logprobs else None)

    def prompts(self) -> list[Prompt]:
        """Return what is to be answered. Raises RequestError."""
        return [self.chat(self.messages)]


def chat_of(fields: Mapping[str, object], names: Mapping[str, str]) -> ChatRequest:
    """Return a request of another API as a chat is asked for; `names` are that API's for the chat's fields.

    Raises RequestValidationError for what a chat cannot have.
    """
    try:
        return ChatRequest.model_validate(fields)
    except ValidationError as error:
        faults = error.errors()
        for fault in faults:
            first, rest = fault["loc"][:1], fault["loc"][1:]
            fault["loc"] = ("body", *(names.get(str(step), step) for step in first), *rest)
        raise RequestValidationError(faults) from None


class TokenizeRequest(_Conversation):
    """A text or a conversation to read: as vLLM names it, and as llama.cpp does (`content`, `add_special`)."""

    model: str | None = None
    prompt: str | None = None
    content: str | None = None
    messages: list[ChatMessage] | None = None
    add_special_tokens: bool | None = None
    add_special: bool | None = None
    parse_special: Literal[True] | None = None
    with_pieces: bool | None = None
    return_token_strs: bool | None = None

    def check(self) -> None:
        """Raise RequestError for a field that asks for what there is not."""
        check_fields(self.model_extra, frozenset(), {})

    def text(self) -> Prompt:
        """Return what is to be read. Raises RequestError."""
        given = [name for name in ("prompt", "content", "messages") if getattr(self, name) is not None]
        if len(given) != 1:
            why = "One of prompt, content and messages is required."
            raise RequestError(why, "missing_required_parameter", "prompt")
        if self.messages is not None:
            return self.chat(self.messages)
        if self.content is not None:
            return self.content if self.add_special else BareText(self.content)
        text = cast(str, self.prompt)
        return BareText(text) if self.add_special_tokens is False else text


class DetokenizeRequest(Fields):
    """Token ids to write as a text."""

    model: str | None = None
    tokens: list[Whole]

    def check(self) -> None:
        """Raise RequestError for a field that asks for what there is not."""
        check_fields(self.model_extra, frozenset(), {})


class TextRequest(CompletionRequest):
    """Texts to go on with."""

    prompt: str | list[str] | list[Whole] | list[list[Whole]]
    suffix: str | None = None
    echo: bool | None = None
    best_of: Whole | None = None
    logprobs: Whole | None = None

    def check(self) -> None:
        """Raise RequestError for a field that asks for what there is not."""
        super().check()
        if self.best_of not in (None, self.choices):
            text = "best_of is not supported, unless it is n: leave it out."
            raise RequestError(text, "unsupported_parameter", "best_of")
        if self.suffix and self.echo and self.logprobs is not None:
            text = "echo is not supported with logprobs where a gap is filled: leave one of the two out."
            raise RequestError(text, "unsupported_parameter", "echo")
        if self.suffix and not (isinstance(self.prompt, str) or all(isinstance(text, str) for text in self.prompt)):
            raise RequestError("suffix needs prompts that are texts, not token ids.", param="suffix")

    def drawn(self, most: int) -> Sampling:
        """Return how the answers are drawn; `most` are the tokens of the longest. Raises RequestError."""
        return replace(self.sampling(min(COMPLETION_TOKENS, most), most, self.logprobs), echo=bool(self.echo))

    def prompts(self) -> list[Prompt]:
        """Return what is to be gone on with, each by itself."""
        if self.suffix:
            texts = [self.prompt] if isinstance(self.prompt, str) else cast(list[str], self.prompt)
            return [Infill(text, self.suffix) for text in texts]
        if isinstance(self.prompt, str):
            return [self.prompt]
        ids = [token for token in self.prompt if isinstance(token, int)]
        if ids:
            return [TokenIds(ids)]
        return [text if isinstance(text, str) else TokenIds(text) for text in self.prompt if not isinstance(text, int)]


def _token(written: str) -> int:
    """Return a token's id as `logit_bias` writes it. Raises RequestError."""
    try:
        return int(written)
    except ValueError:
        raise RequestError(f"logit_bias: {written[:100]!r} is no token's id.", param="logit_bias") from None
