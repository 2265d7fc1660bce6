"""What the model is asked, and how its answer is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict


class Message(TypedDict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


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


Prompt = Sequence[Message] | str  # a conversation, or a text to go on with
