"""Visitors on the page of a running server: its own events, as a browser sends them, and answers as they stream.

So records are the server's: the models' digests, conversations, and consent to what the page says is kept. What a
visitor reads is what the page is told to draw; whose it is, the page of a blind comparison is not told before the vote.
"""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import httpx

from benchmarks.visitors_taste import Visitor
from serve.feedback import CONSENT
from serve.page.compare import VOTES

AT_ONCE = 4  # visitors
COMPARES = 0.5  # of visits; the others ask for one answer
SECONDS = 300.0  # that the server may be silent, on a machine with other work


class Event(TypedDict):
    """One of Gradio's events."""

    id: int
    inputs: list[int]  # widgets
    outputs: list[int]


@dataclass(frozen=True)
class Page:
    """The page's events, found by what its widgets are called."""

    client: httpx.AsyncClient
    values: dict[int, object]  # of widgets, to begin with
    told: frozenset[int]  # widgets by which the server tells the page how far answers have come
    ask_both: Event
    votes: dict[str, Event]
    ask: Event
    thumb: Event
    edit: Event

    @classmethod
    async def opened(cls, client: httpx.AsyncClient) -> "Page":
        """Open the page."""
        config = (await client.get("/config")).raise_for_status().json()
        by_name: dict[str, int] = {}
        for component in config["components"]:
            props = component["props"]
            by_name[props.get("elem_id") or f"{component['type']} {props.get('value')}"] = component["id"]

        def event(widget: str, name: str) -> Event:
            target = [by_name[widget], name]
            return next(one for one in config["dependencies"] if one["backend_fn"] and target in one["targets"])

        return cls(
            client,
            {component["id"]: component["props"].get("value") for component in config["components"]},
            frozenset(component["id"] for component in config["components"] if component["type"] == "json"),
            event("question", "submit"),
            {vote: event(f"button {label}", "click") for vote, label in VOTES.items()},
            event("ask", "click"),
            event("chat", "like"),
            event("edited", "click"),
        )

    def filled(self, event: Event, *first: object) -> list[object]:
        """Return an event's inputs: the first ones as given, the others as the page shows them."""
        return [*first, *(self.values[widget] for widget in event["inputs"][len(first) :])]

    async def stream(self, event: Event, session: str, inputs: Sequence[object]) -> AsyncIterator[list[object]]:
        """Yield an event's outputs as they come. Raises RuntimeError where it fails."""
        body = {"fn_index": event["id"], "session_hash": session, "data": inputs, "simple_format": True}
        (await self.client.post("/gradio_api/queue/join", json=body)).raise_for_status()
        source = self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session})
        async with source as answer:
            async for line in answer.aiter_lines():
                if not line.startswith("data: "):
                    continue
                message = json.loads(line.removeprefix("data: "))
                if message["msg"] == "process_generating":
                    yield message["output"]["data"]
                elif message["msg"] == "process_completed":
                    if not message["success"]:
                        raise RuntimeError(f"the server failed: {message['output']}")
                    return

    async def send(self, event: Event, session: str, inputs: Sequence[object], about: object = None) -> None:
        """Let an event act that answers at once."""
        body = {"fn_index": event["id"], "session_hash": session, "data": inputs, "event_data": about}
        (await self.client.post("/gradio_api/run/predict", json=body)).raise_for_status()

    def told_of(self, event: Event, outputs: Sequence[object]) -> object:
        """Return what a state tells the page to draw; nothing where that stays."""
        (value,) = (value for widget, value in zip(event["outputs"], outputs, strict=True) if widget in self.told)
        return None if isinstance(value, dict) and "__type__" in value else value


async def visit_all(url: str, everybody: Iterable[Visitor], models: tuple[str, str]) -> Counter[str]:
    """Let visitors come, some at once; return what they did how often.

    Args:
        url: of the server.
        everybody: the visitors.
        models: the two that are compared, the first of which answers in the chat.
    """
    done: Counter[str] = Counter()
    room = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=SECONDS) as client:
        page = await Page.opened(client)

        async def come(visitor: Visitor) -> None:
            async with room:
                for _ in range(visitor.visits):
                    act = compare if visitor.rng.random() < COMPARES else chat
                    done.update(await act(page, visitor, models))

        await asyncio.gather(*map(come, everybody))
    return done


async def compare(page: Page, visitor: Visitor, models: tuple[str, str]) -> list[str]:
    """Ask both models one question, and vote."""
    session, event = uuid.uuid4().hex, page.ask_both
    seen: object = None
    inputs = page.filled(event, visitor.question(), True, *models, visitor.wish)
    async for outputs in page.stream(event, session, inputs):
        seen = page.told_of(event, outputs) or seen
    left, right = texts(seen)
    vote = "tie" if left == right else "left" if visitor.prefers_left(left, right) else "right"
    await page.send(page.votes[vote], session, [told_by(visitor), None])
    return ["vote", "tie"] if vote == "tie" else ["vote"]


async def chat(page: Page, visitor: Visitor, models: tuple[str, str]) -> list[str]:
    """Ask one question in the chat, judge the answer, and perhaps write it anew."""
    session, conversation = uuid.uuid4().hex, uuid.uuid4().hex
    asked = {"id": uuid.uuid4().hex, "turns": [{"role": "user", "content": visitor.question()}]}
    state: dict[str, object] = {}
    async for outputs in page.stream(page.ask, session, page.filled(page.ask, asked, models[0], visitor.wish)):
        told = page.told_of(page.ask, outputs)
        state = told if isinstance(told, dict) else state
    answer, record = str(state["text"]), state["record"]
    visit, liked = told_by(visitor, conversation), visitor.likes(answer)
    shown = {"shown": ["", record], "visit": visit}
    await page.send(page.thumb, session, [shown], {"index": 1, "value": answer, "liked": liked})
    if liked or (better := visitor.edited(answer)) is None:
        return ["thumb"]
    await page.send(page.edit, session, [{"record": record, "text": better, "visit": visit}])
    return ["thumb", "edit"]


def told_by(visitor: Visitor, conversation: str = "") -> dict[str, object]:
    """Return what the browser tells of a visitor who has agreed to what is kept."""
    return {"visitor": visitor.id, "conversation": conversation, "consent": CONSENT.version}


def texts(told: object) -> tuple[str, str]:
    """Return the two answers that the page draws. Raises RuntimeError where one is missing."""
    match told:
        case [{"text": str(left)}, {"text": str(right)}]:
            return left, right
    raise RuntimeError(f"the page was told of no two answers: {told}")
