"""Who judges, as page.js says it: a browser's id, and that the visitor agreed to what the page said is kept."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llama.errors import RequestError
from serve.feedback import CONSENT, Visit, visitor_of
from serve.page.asked import MADE_UP


class Told(BaseModel):
    """What the browser tells of its visitor."""

    model_config = ConfigDict(extra="forbid")
    visitor: Annotated[str, Field(pattern=MADE_UP)]
    conversation: Annotated[str, Field(pattern=r"^[\w-]{0,64}$")] = ""  # none: of a comparison, or as it was before
    consent: int


def read_visit(told: object) -> Visit:
    """Return the visit. Raises RequestError where nobody was asked, or for other words than are asked now."""
    try:
        fields = Told.model_validate(told)
    except ValidationError:
        raise RequestError("Nothing is kept before the page has asked you: reload it.") from None
    if fields.consent != CONSENT.version:
        raise RequestError("What is kept has changed since you were asked: reload the page.")
    return Visit(visitor_of(fields.visitor), fields.conversation, CONSENT)


def field(told: object, name: str) -> object:
    """Return a field of what page.js tells; None where a program has told something else."""
    return told.get(name) if isinstance(told, dict) else None


def read_visitor(browser_id: object) -> str | None:
    """Return the name in records of a browser's visitor; None for one who has none yet."""
    return visitor_of(browser_id) if isinstance(browser_id, str) and browser_id else None
