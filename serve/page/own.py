"""The tab in which visitors see what they have said, and delete it: by the id that their browser alone has."""

import html
from dataclasses import asdict

import gradio as gr

from common.words import counted
from llama.errors import RequestError
from serve.feedback import CONSENT, ComparisonRecord, Record
from serve.page.controls import ticks
from serve.page.feedback_panel import HIDDEN
from serve.page.remembered import Answers
from serve.page.visits import read_visitor

NONE = "Nothing of this browser is kept."
VOTES = {"left": "A was better", "right": "B was better", "tie": "A tie", "both_bad": "Both bad"}
SHOWN = 80  # characters of a question
BROWSER = "(_, ...values) => [tunesmith.visitor(), ...values]"


def show_own(answers: Answers, tab: gr.Tab) -> None:
    """Show the tab: what is kept and for what, what the visitor has said, and the ways to take it back."""
    gr.HTML(_about(), padding=False, elem_classes="note")
    said = gr.HTML(f"<p role='status'>{NONE}</p>", padding=False, elem_id="own-said")
    kept = ticks("Kept", show_label=False, elem_id="own")
    with gr.Row(visible=False, elem_id="own-ways") as ways:
        delete, delete_all, download, reset = (
            gr.Button(label, size="sm", min_width=120)
            for label in ("Delete what is ticked", "Delete all", "Download all", "New number")
        )
    browser, told = gr.JSON(visible=False), gr.JSON(visible=False)
    shown = [said, kept, ways]

    def show(browser_id: object, before: str = "") -> list[object]:
        visitor = read_visitor(browser_id)
        records = answers.of_visitor(visitor) if visitor else []
        number = f"{counted(len(records), 'judgement')} of this browser, number {visitor}." if records else NONE
        choices = [(_line(record), record.id) for record in records]
        line = f"<p role='status'>{html.escape(f'{before} {number}'.strip())}</p>"
        return [line, gr.update(choices=choices, value=[]), gr.update(visible=bool(records))]

    def forget_some(browser_id: object, ids: object) -> list[object]:
        return forget(browser_id, list(map(str, ids)) if isinstance(ids, list) else [])

    def forget(browser_id: object, ids: list[str] | None = None) -> list[object]:
        visitor = read_visitor(browser_id)
        try:
            gone = answers.forget(visitor, ids) if visitor else set()
        except RequestError as error:
            return [None, *show(browser_id, str(error))]
        return [sorted(gone), *show(browser_id, f"{counted(len(gone), 'judgement')} deleted.")]

    def everything(browser_id: object) -> list[dict[str, object]]:
        visitor = read_visitor(browser_id)
        return [asdict(record) for record in answers.of_visitor(visitor)] if visitor else []

    deleted = [told, *shown]
    tab.select(show, browser, shown, js=BROWSER, queue=False, **HIDDEN)
    delete.click(forget_some, [browser, kept], deleted, js=BROWSER, queue=False, **HIDDEN)
    delete_all.click(forget, browser, deleted, js=BROWSER, queue=False, **HIDDEN)
    told.change(None, told, None, js="(told) => tunesmith.forgot(told)", queue=False, **HIDDEN)
    records = gr.JSON(visible=False)
    loaded = download.click(everything, browser, records, js=BROWSER, queue=False, **HIDDEN)
    loaded.then(None, records, None, js="(records) => tunesmith.download(records)", queue=False, **HIDDEN)
    renewed = reset.click(None, None, None, js="() => tunesmith.reset()", queue=False, **HIDDEN)
    renewed.then(show, browser, shown, js=BROWSER, queue=False, **HIDDEN)


def _about() -> str:
    texts = (
        f"Kept on this server, once you agree: {CONSENT.kept}.",
        f"For what: {CONSENT.purpose}.",
        "What you delete is gone from the server at once, and from its copy elsewhere with the next transfer. A model "
        "that has learnt from it stays as it is until the next one is made.",
        "A new number parts you from what is kept under the old one: it stays, and you can no longer see or delete it.",
    )
    return "".join(f"<p>{html.escape(text)}</p>" for text in texts)


def _line(record: Record) -> str:
    """Return a judgement in a line: when, what, and of which question."""
    if isinstance(record, ComparisonRecord):
        said = VOTES.get(record.vote or "", "No vote")
    else:
        said = {"good": "Good", "bad": "Bad"}.get(record.verdict or "", "No verdict")
        said += ", edited" if record.edited else ""
    said += ", with a comment" if record.comment else ""
    question = " ".join(str(record.messages[-1]["content"]).split())
    question = question if len(question) <= SHOWN else f"{question[: SHOWN - 1]}…"
    return f"{record.time[:16].replace('T', ' ')} · {said} · {question}"
