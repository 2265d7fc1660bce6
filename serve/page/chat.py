"""The tab to talk in, and what programs call as /chat (gradio_client)."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import gradio as gr
from gradio.components.chatbot import ChatbotDataMessages

from llama.errors import RequestError
from serve.engine import Engine
from serve.feedback import Answer, AnswerRecord, ModelVersion, Verdict, new_id
from serve.page import feedback_panel as judging
from serve.page.answers import conversation, draw, reply, text_of, timings
from serve.page.controls import BUSY, IDLE, question_box, sampling
from serve.page.feedback_panel import HIDDEN
from serve.page.remembered import Answers
from serve.settings import Settings

EXAMPLES = (
    "What is 5 + 6?",
    "What is the capital of France?",
    "How many 'r's are in the word 'strawberry'?",
    "Continue the Fibonacci sequence: 1, 1, 2, 3, 5, 8,",
)
EXAMPLES_SHOWN, EXAMPLE_CHARS = 4, 80  # of a model's own prompts, the first so short
FAILED = "The server failed to answer."
GREETING = "### What would you like to know?"
# A question to the engine waits there, and not for Gradio's turn: so its message is shown at once.
ANSWERING: dict[str, Any] = {"concurrency_limit": None, "api_visibility": "private", "show_progress": "minimal"}

# Gradio logs what a forged request has instead of a conversation: then without its words.
ChatbotDataMessages.model_config["hide_input_in_errors"] = True
ChatbotDataMessages.model_rebuild(force=True)


class Chat:
    """The tab's widgets and what they do."""

    def __init__(self, engine: Engine, settings: Settings, answers: Answers | None, examples: Sequence[str]) -> None:
        """Chat over an engine; without `answers` nothing can be judged."""
        self._engine, self._answers = engine, answers
        self.chatbot = gr.Chatbot(
            show_label=False,
            height=None,
            buttons=["copy"],
            editable="user",
            placeholder=GREETING,
            examples=[{"text": example} for example in examples],
            elem_id="chat",
        )
        self._why = judging.show_why(answers) if answers else None
        self.message = question_box("Message", "Type a message…", autofocus=True, elem_id="message")

    def connect(self, model: gr.Dropdown, controls: Sequence[Any], saving: Callable[..., Any]) -> list[Any]:
        """Let the widgets act; return the events that answer. `saving` is called with each that changes the chat."""
        chatbot, message, shown = self.chatbot, self.message, [self.message, self.chatbot, *self._why_widgets]
        settings = [model, *controls]
        answering: list[Any] = [
            message.submit(self._send, [message, chatbot, *settings], shown, **ANSWERING),
            chatbot.retry(self._retry, [chatbot, *settings], shown, **ANSWERING),
            chatbot.edit(self._edit, [chatbot, *settings], shown, **ANSWERING),
            chatbot.example_select(self._example, settings, shown, **ANSWERING),
        ]
        message.stop(lambda: gr.update(**IDLE), None, message, cancels=answering, queue=False, **HIDDEN)
        undone = chatbot.undo(self._undo, [chatbot], shown, queue=False, **HIDDEN)
        for event in (*answering, undone):
            saving(event.then)
        saving(message.stop)
        if self._answers:
            chatbot.like(self._judge, [chatbot], [chatbot, *self._why_widgets], queue=False, **HIDDEN)
        return answering

    @property
    def _why_widgets(self) -> list[Any]:
        return self._why.widgets if self._why else []

    async def _send(self, text: str, history: list[dict], *settings: Any) -> AsyncIterator[list[Any]]:
        async for state in self._answer(text, history, self._chat(history), {"value": text}, *settings):
            yield state

    async def _retry(self, history: list[dict], *settings: Any) -> AsyncIterator[list[Any]]:
        text, before = without_last(history)
        async for state in self._answer(text, before, self._chat(history), {}, *settings):
            yield state

    async def _edit(self, edited: gr.EditData, history: list[dict], *settings: Any) -> AsyncIterator[list[Any]]:
        place = int(edited.index)  # type: ignore[arg-type]
        before, after = history[:place], history[place + 1 :]
        original = self._chat([*before, question(str(edited.previous_value)), *after])
        async for state in self._answer(str(edited.value), before, original, {}, *settings):
            yield state

    async def _example(self, example: gr.SelectData, *settings: Any) -> AsyncIterator[list[Any]]:
        async for state in self._answer(str(example.value["text"]), [], self._chat([]), {}, *settings):
            yield state

    async def _answer(
        self, text: str, before: list[dict], refused: Any, returned: dict, model: str, system: str, *drawing: Any
    ) -> AsyncIterator[list[Any]]:
        """Yield what `shown` becomes, from the question on.

        Without an answer, the chat becomes `refused` and the message's box gets `returned`: nothing is lost.
        """
        messages, how, turns = conversation(system, before, text), sampling(*drawing), [*before, question(text)]
        answer_id, unchanged = new_id(), [gr.skip()] * len(self._why_widgets)
        last: Answer | None = None
        if isinstance(text, str) and not text.strip():
            return
        yield [gr.update(value="", **BUSY), self._chat(turns), *(judging.close() if self._why else [])]
        try:
            async with aclosing(draw(self._engine, model, messages, how)) as drawn:  # type: ignore[type-var]
                async for answer, piece in drawn:
                    last = Answer(answer, ModelVersion(model), timings(piece))
                    yield [gr.skip(), [*turns, reply(answer, piece, answer_id)], *unchanged]
        except Exception as error:  # the engine logs its own; here the page must come to rest
            gr.Warning(str(error) if isinstance(error, RequestError) else FAILED, title="No answer")
            if not last:
                yield [gr.update(**returned, **IDLE), refused, *unchanged]
                return
        finally:  # it can be judged when it has ended, by a stop too, and not before: a verdict is on all of it
            if self._answers and last:
                self._answers.remember(AnswerRecord(id=answer_id, messages=messages, sampling=asdict(how), answer=last))
        yield [gr.update(**IDLE), gr.skip(), *unchanged]

    def _undo(self, history: list[dict]) -> list[Any]:
        text, before = without_last(history)
        return [text, self._chat(before), *(judging.close() if self._why else [])]

    def _judge(self, thumb: gr.LikeData, history: list[dict]) -> list[Any]:
        """Keep a thumb: up, down, or taken back. The chat then shows what was kept, and no more."""
        assert self._answers  # noqa: S101 - there are no thumbs without
        verdict: Verdict | None = "good" if thumb.liked is True else "bad" if thumb.liked is False else None
        try:
            record = self._answers.judge(answer_id(history[int(thumb.index)]), verdict=verdict, reasons=())  # type: ignore[arg-type]
            updates = judging.ask(record, verdict) if verdict else judging.confirm("Taken back.")
        except RequestError as error:
            updates = judging.refuse(error)
        return [gr.update(feedback_value=self._thumbs(history)), *updates]

    def _chat(self, history: list[dict]) -> Any:
        return gr.update(value=history, feedback_value=self._thumbs(history))

    def _thumbs(self, history: list[dict]) -> list[str | None]:
        """Return how each answer was judged."""
        records = [self._answers and self._answers.get(answer_id(m)) for m in history if m["role"] == "assistant"]
        verdicts = [record.verdict if isinstance(record, AnswerRecord) else None for record in records]
        return [{"good": "Like", "bad": "Dislike"}.get(verdict or "") for verdict in verdicts]


def add_endpoint(engine: Engine, message: gr.Textbox, model: gr.Dropdown, controls: Sequence[Any]) -> None:
    """Add the chat for programs, /chat: a conversation for each client, held here."""

    async def chat(
        message: str,
        history: list[dict],
        model: str,
        system: str,
        temperature: float,
        max_tokens: int,
        top_p: float,
        frequency_penalty: float,
        presence_penalty: float,
        seed: int | None = None,
    ) -> AsyncIterator[tuple[dict, list[dict]]]:
        """Answer a message with a model, within the server's limits."""
        how = sampling(temperature, max_tokens, top_p, frequency_penalty, presence_penalty, seed)
        turns = [*history, question(message)]
        try:
            async with aclosing(draw(engine, model, conversation(system, turns), how)) as drawn:  # type: ignore[type-var]
                async for text, piece in drawn:
                    answer = reply(text, piece)
                    yield answer, [*turns, answer]
        except RequestError as error:
            raise gr.Error(str(error), title="No answer", print_exception=False) from None

    history, answer = gr.State([]), gr.JSON(visible=False)
    gr.Button(visible=False).click(
        chat, [message, history, model, *controls], [answer, history], api_name="chat", postprocess=False
    )


def examples(prompts: Sequence[str]) -> list[str]:
    """Return what a visitor can begin with: the first few short ones of a model's own prompts, else the usual ones."""
    return [prompt for prompt in prompts if len(prompt) <= EXAMPLE_CHARS][:EXAMPLES_SHOWN] or list(EXAMPLES)


def without_last(history: Sequence[dict]) -> tuple[str, list[dict]]:
    """Return the last question, and the conversation before it."""
    indices = [place for place, turn in enumerate(history) if turn["role"] == "user"]
    return (text_of(history[indices[-1]]["content"]), list(history[: indices[-1]])) if indices else ("", [])


def question(text: str) -> dict:
    """Return a visitor's words for Gradio's chat."""
    return {"role": "user", "content": text}


def answer_id(turn: dict) -> str:
    """Return by what an answer is known here."""
    return str((turn.get("metadata") or {}).get("id", ""))
