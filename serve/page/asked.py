"""What a page asks, as it comes from the browser: anything may stand in it."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llama.errors import RequestError
from llama.thoughts import Parts
from llama.types import Chat, Message
from serve.page.answers import conversation
from serve.page.controls import sampling
from serve.page.under_way import Question

MADE_UP = r"^[0-9a-f]{32}$"  # by page.js: as long as a UUID, so that nobody can guess it


class Said(BaseModel):
    """A turn of the conversation."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant"]
    content: str
    thought: str = ""


class Asked(BaseModel):
    """An answer that is wanted."""

    model_config = ConfigDict(extra="forbid")
    id: Annotated[str, Field(pattern=MADE_UP)]
    turns: list[Said]
    goes_on: bool = False  # the last turn is the answer's beginning
    continues: str = ""  # the record of that beginning
    only_follow: bool = False
    conversation: Annotated[str, Field(pattern=r"^[\w-]{0,64}$")] = ""
    by: str = ""  # the model that gave the answer before


def read_question(asked: Any, model: str, system: Any, drawing: Sequence[Any]) -> Question:
    """Return what a page asks, with the values of its widgets; the engine checks those.

    Raises RequestError for what page.js does not send.
    """
    try:
        fields = Asked.model_validate(asked)
    except ValidationError:
        raise RequestError("The page sends what this server does not know: reload it.") from None
    turns = [_message(turn) for turn in fields.turns]
    begun = Parts("", "")
    if fields.goes_on and fields.turns:
        begun = Parts(fields.turns[-1].thought, fields.turns[-1].content)
    chat = Chat(conversation(system, turns), goes_on=fields.goes_on)
    return Question(
        fields.id,
        chat,
        model,
        sampling(*drawing),
        begun,
        fields.continues,
        only_follow=fields.only_follow,
        conversation=fields.conversation,
        by=fields.by,
    )


def _message(turn: Said) -> Message:
    message: Message = {"role": turn.role, "content": turn.content}
    if turn.thought:
        message["reasoning_content"] = turn.thought
    return message
