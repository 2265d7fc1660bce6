"""The tab to talk in, and what programs call as /chat (gradio_client)."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import gradio as gr

from llama.errors import RequestError
from llama.types import Message
from serve.canary import Canary
from serve.engine import Engine
from serve.feedback import AnswerRecord, Verdict, new_id
from serve.page import feedback_panel as judging
from serve.page.answers import conversation, draw, figures, timings
from serve.page.asked import read_question
from serve.page.controls import question_box, sampling
from serve.page.feedback_panel import HIDDEN
from serve.page.remembered import Answers
from serve.page.under_way import UnderWay
from serve.page.visits import field, read_visit

EXAMPLES = (
    "What is 5 + 6?",
    "What is the capital of France?",
    "How many 'r's are in the word 'strawberry'?",
    "Continue the Fibonacci sequence: 1, 1, 2, 3, 5, 8,",
)
EXAMPLES_SHOWN, EXAMPLE_CHARS = 4, 80  # of a model's own prompts, the first so short
FAILED = "The server failed to answer."
GREETING = "## What would you like to know?"
# A question to the engine waits there, and not for Gradio's turn: so its message is shown at once.
ANSWERING: dict[str, Any] = {"concurrency_limit": None, "api_visibility": "private", "show_progress": "minimal"}

# What is typeset, as models write it. page.js marks the single dollars that are no sums of money.
MATH: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
    {"left": "$\u2063", "right": "\u2063$", "display": False},
]


class Chat:
    """The tab's widgets, and what of them asks the server; the rest is history.py's and page.js's."""

    def __init__(self, engine: Engine, canary: Canary, answers: Answers | None, examples: Sequence[str]) -> None:
        """Chat over an engine; without `answers` nothing can be judged."""
        self._canary, self._answers, self._under_way = canary, answers, UnderWay(engine, answers)
        self.chatbot = gr.Chatbot(
            show_label=False,
            height=None,
            buttons=["copy"],
            editable="all",
            latex_delimiters=MATH,
            placeholder=GREETING,
            examples=[{"text": example} for example in examples],
            elem_id="chat",
        )
        self._why = judging.show_why(answers) if answers else None
        self.message = question_box("Message", "Type a message…", autofocus=True, elem_id="message")
        self.told = gr.JSON(visible=False)  # what the server tells page.js: how far an answer has come, or a verdict
        self.ask, self.leave = (gr.Button(visible="hidden", elem_id=name) for name in ("ask", "leave"))

    @property
    def why(self) -> list[Any]:
        """The panel about an answer, which closes when the conversation goes on."""
        return [self._why.panel] if self._why else []

    def connect(self, model: gr.Dropdown, controls: Sequence[Any]) -> Any:
        """Let the widgets ask the server; return the event in which an answer comes. page.js says which it is.

        What changes the answers under way runs in their event loop.
        """
        self.leave.click(self._leave, self.told, None, js="() => [tunesmith.left()]", queue=False, **HIDDEN)
        self.message.stop(self._stop, self.told, None, js="() => [tunesmith.asking()]", queue=False, **HIDDEN)
        if self._why:
            judged = [self.told, *self._why.widgets]
            ask = "async () => [await tunesmith.judging()]"
            self.chatbot.like(self._judge, self.told, judged, js=ask, queue=False, **HIDDEN)
            edited = "async () => [await tunesmith.edited()]"
            button = gr.Button(visible="hidden", elem_id="edited")
            button.click(self._keep_edited, self.told, self._why.widgets, js=edited, queue=False, **HIDDEN)
        return self.ask.click(
            self._answer,
            [self.told, model, *controls],
            self.told,
            js="(_, ...settings) => [tunesmith.asked(), ...settings]",
            show_progress_on=self.chatbot,
            trigger_mode="multiple",
            **ANSWERING,
        )

    async def _answer(
        self, request: gr.Request, asked: Any, model: str, system: str, *drawing: Any
    ) -> AsyncIterator[Any]:
        """Yield how far the answer has come."""
        try:
            question = read_question(asked, model, system, drawing)
            by, shown = self._canary.answers(question.model, question.conversation, question.by)
            question = replace(question, model=by, shown=shown)
            async with aclosing(self._under_way.follow(question, str(request.session_hash))) as states:  # type: ignore[type-var]
                async for state in states:
                    yield state
        except Exception as error:  # the engine logs its own; here the page must come to rest
            gr.Warning(str(error) if isinstance(error, RequestError) else FAILED, title="No answer")
            yield {"id": asked.get("id") if isinstance(asked, dict) else None, "ended": True}

    async def _stop(self, answer_id: Any) -> None:
        self._under_way.stop(str(answer_id))

    async def _leave(self, request: gr.Request, answer_id: Any) -> None:
        self._under_way.leave(str(answer_id), str(request.session_hash))

    def _judge(self, thumb: gr.LikeData, told: object) -> list[object]:
        """Keep a thumb: up, down, or taken back. The chat then shows what was kept, and no more."""
        assert self._answers  # noqa: S101 - there are no thumbs without
        verdict: Verdict | None = "good" if thumb.liked is True else "bad" if thumb.liked is False else None
        try:
            record_id = _record_of(told, thumb.index)
            record = self._answers.judge(record_id, read_visit(field(told, "visit")), verdict=verdict, reasons=())
            updates = judging.ask(record, verdict) if verdict else judging.confirm("Taken back.")
        except RequestError as error:
            return [{"refused": new_id()}, *judging.refuse(error)]
        return [{"judged": record.id, "verdict": verdict, "at": record.time}, *updates]

    def _keep_edited(self, told: object) -> list[object]:
        """Keep an answer as the visitor would have it, with the thought that the model's own has."""
        assert self._answers  # noqa: S101
        try:
            visit, record_id = read_visit(field(told, "visit")), str(field(told, "record"))
            known = self._answers.get(record_id)
            thought = known.answer.thought if isinstance(known, AnswerRecord) else ""
            self._answers.judge(record_id, visit, edited=thought + str(field(told, "text")))
        except RequestError as error:
            return judging.refuse(error)
        return judging.confirm("Thank you, your version is kept.")


def _record_of(told: object, place: object) -> str:
    """Return the record of the answer that stands at a place of the chat, by what page.js says is shown there."""
    shown = field(told, "shown")
    if isinstance(shown, list) and isinstance(place, int) and 0 <= place < len(shown):
        return str(shown[place])
    return ""


def add_endpoint(engine: Engine, message: gr.Textbox, model: gr.Dropdown, controls: Sequence[Any]) -> None:
    """Add the chat for programs, /chat: a conversation for each client, held here."""

    async def chat(
        message: str,
        history: list[Message],
        model: str,
        system: str,
        temperature: float,
        max_tokens: int,
        top_p: float,
        frequency_penalty: float,
        presence_penalty: float,
        seed: int | None = None,
    ) -> AsyncIterator[tuple[dict, list[Message]]]:
        """Answer a message with a model, within the server's limits."""
        how = sampling(temperature, max_tokens, top_p, frequency_penalty, presence_penalty, seed)
        turns: list[Message] = [*history, {"role": "user", "content": message}]
        try:
            async with aclosing(draw(engine, model, conversation(system, turns), how)) as drawn:  # type: ignore[type-var]
                async for text, piece in drawn:
                    parts = [{"type": "text", "text": part} for part in (text, figures(timings(piece)))]
                    answer: Message = {"role": "assistant", "content": text}
                    yield {"role": "assistant", "content": parts}, [*turns, answer]
        except RequestError as error:
            raise gr.Error(str(error), title="No answer", print_exception=False) from None

    history, answer = gr.State([]), gr.JSON(visible=False)
    gr.Button(visible=False).click(
        chat, [message, history, model, *controls], [answer, history], api_name="chat", postprocess=False
    )


def examples(prompts: Sequence[str]) -> list[str]:
    """Return what a visitor can begin with: the first few short ones of a model's own prompts, else the usual ones."""
    return [prompt for prompt in prompts if len(prompt) <= EXAMPLE_CHARS][:EXAMPLES_SHOWN] or list(EXAMPLES)
