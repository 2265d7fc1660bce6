"""Where a visitor says why: reasons to tick and a comment, for an answer of the chat and for a vote alike."""

import html
from dataclasses import dataclass
from typing import Any

import gradio as gr

from llama.errors import RequestError
from serve.feedback import COMMENT_CHARS, REASONS, Record, Verdict
from serve.page.controls import ticks
from serve.page.remembered import Answers
from serve.page.visits import read_visit

KEPT = "Thank you, kept."
WHO = "async (_, ...values) => [await tunesmith.visit(), ...values]"
HIDDEN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}  # of events for the page alone


@dataclass(frozen=True)
class Why:
    """The panel's widgets; which answer it is about stands in `answer_id`."""

    panel: gr.Group
    message: gr.HTML
    reasons: gr.CheckboxGroup
    comment: gr.Textbox
    send: gr.Button
    answer_id: gr.State

    @property
    def widgets(self) -> list[Any]:
        """What `ask`, `confirm` and `close` fill, in their order."""
        return [self.panel, self.message, self.reasons, self.comment, self.send, self.answer_id]


def show_why(answers: Answers) -> Why:
    """Return the panel, closed until something was judged."""
    with gr.Group(visible=False, elem_classes="why") as panel:
        message = gr.HTML(elem_classes="said", padding=False)
        reasons = ticks("Why? Tick what fits.")
        with gr.Row(elem_classes="comment"):
            comment = gr.Textbox(
                label="Comment",
                show_label=False,
                placeholder="Anything to add? (optional)",
                max_length=COMMENT_CHARS,
                lines=1,
                max_lines=5,
                container=False,
                scale=4,
                min_width=160,
            )
            send = gr.Button("Send", size="sm", scale=0, min_width=88)
    why = Why(panel, message, reasons, comment, send, gr.State(""))

    def explain(told: object, answer_id: str, ticked: list[str], text: str) -> list[Any]:
        try:
            answers.judge(answer_id, read_visit(told), reasons=tuple(ticked), comment=text)
        except RequestError as error:
            return refuse(error)
        return confirm()

    told = gr.JSON(visible=False)
    asked = [told, why.answer_id, reasons, comment]
    send.click(explain, asked, why.widgets, js=WHO, queue=False, **HIDDEN)
    return why


def ask(record: Record, verdict: Verdict) -> list[Any]:
    """Say that a judgement is kept, and ask why: for the reasons that go with it."""
    choices = [(reason.label, reason.key) for reason in REASONS if reason.verdict in (verdict, None)]
    ticked = [key for _, key in choices if key in record.reasons]
    return [
        gr.update(visible=True),
        _line(KEPT),
        gr.update(choices=choices, value=ticked, visible=True),
        gr.update(value=record.comment, visible=True),
        gr.update(visible=True),
        record.id,
    ]


def confirm(text: str = KEPT) -> list[Any]:
    """Say that all is kept, and ask no more."""
    gone = gr.update(visible=False)
    return [gr.update(visible=True), _line(text), gone, gone, gone, gr.skip()]


def refuse(error: RequestError) -> list[Any]:
    """Say that it was not kept, and leave what was ticked and written."""
    return [gr.update(visible=True), _line(f"Not kept: {error}", "failed"), *[gr.skip()] * 4]


def close() -> list[Any]:
    """Hide the panel: the conversation went on."""
    return [gr.update(visible=False), "", *[gr.skip()] * 4]


def _line(text: str, kind: str = "kept") -> str:
    return f'<p class="{kind}" role="status">{html.escape(text)}</p>'
