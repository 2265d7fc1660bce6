"""What the model is asked, and how its answer is drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NotRequired, TypedDict


class Message(TypedDict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    name: NotRequired[str]  # who speaks, for templates that write it
    reasoning_content: NotRequired[str]  # what an answer was thought out in, for templates that write it
    tool_calls: NotRequired[str]  # as JSON: [{"id", "type": "function", "function": {"name", "arguments": {…}}}]
    tool_call_id: NotRequired[str]  # whose result it is


@dataclass(frozen=True)
class Form:
    """What an answer must look like; llama/grammar has what it means."""

    kind: Literal["object", "schema", "gbnf", "pattern", "choice"]
    source: str  # a JSON schema as JSON, a grammar, a pattern, or texts as a list in JSON; an object needs none
    param: str  # the field that asks for it, for errors


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn."""

    max_tokens: int = 256
    temperature: float = 0.7  # 0: always the likeliest token
    seed: int | None = None  # None: another answer each time
    top_p: float = 0.95  # of the likeliest tokens, as many as have this probability together
    frequency_penalty: float = 0.0  # for each time that a token has come before
    presence_penalty: float = 0.0  # for a token that has come before
    stop: tuple[str, ...] = ()  # texts before which the answer ends
    top_k: int = 40  # of the likeliest tokens, so many; 0: all
    min_p: float = 0.05  # none less likely than this share of the likeliest
    repeat_penalty: float = 1.0  # divides what speaks for a token that has come before
    logit_bias: tuple[tuple[int, float], ...] = ()  # tokens, and what is added to their logits
    logprobs: int | None = None  # tokens whose chances are told beside each of the answer's; None: not even its own
    min_tokens: int = 0  # before which nothing but the longest answer's length ends it
    ignore_eos: bool = False  # the model cannot end its turn
    stop_tokens: tuple[int, ...] = ()  # tokens before which the answer ends
    keep_stop: bool = False  # the text or token that ends an answer is a part of it
    echo: bool = False  # the prompt's text is told before the answer
    form: Form | None = None  # what it must look like


@dataclass(frozen=True)
class Tools:
    """What an answer may call."""

    schemas: Sequence[Mapping[str, object]]  # OpenAI's: {"type": "function", "function": {"name", "parameters", …}}
    names: frozenset[str] | None = None  # those that may be called; None for all
    required: bool = False  # the answer calls, and says nothing else
    parallel: bool = True  # it may call several

    @property
    def lenient(self) -> bool:
        """Whether calls need not be as the schemas say: none is required, and no tool is `strict`."""
        functions = [schema["function"] for schema in self.schemas]
        return not self.required and not any(isinstance(f, dict) and f.get("strict") for f in functions)


@dataclass(frozen=True)
class Chat:
    """A conversation, and how its chat template is to write it."""

    messages: Sequence[Message]
    goes_on: bool = False  # the last message is an answer's beginning, which the model goes on with
    switches: Mapping[str, object] = field(default_factory=dict)  # the template's variables, such as enable_thinking
    effort: str | None = None  # how much is thought before the answer; none: nothing
    thinks: bool | None = None  # whether anything is; None: as the template has it
    tools: Tools | None = None


@dataclass(frozen=True)
class TokenIds:
    """A text to go on with that is written as token ids already."""

    ids: Sequence[int]


@dataclass(frozen=True)
class BareText:
    """A text around which nothing is added, such as BOS."""

    text: str


@dataclass(frozen=True)
class Infill:
    """What stands before and after a gap that the model is to fill."""

    before: str
    after: str


# A conversation, or a text to go on with.
Prompt = Sequence[Message] | Chat | str | BareText | TokenIds | Infill
