"""Conversations of the past, kept in the visitor's own browser: page.js writes and reads them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from serve.page.feedback_panel import HIDDEN

# Gradio encrypts what it stores with a key that it puts into the page. A lasting one, or no restart would be survived.
STORAGE_KEY, SECRET = "tunesmith-conversations", "tunesmith"
NOTE = "Your conversations stay in this browser; the server keeps"
KEPT, NONE_KEPT = "those in which you judge an answer.", "none."


@dataclass(frozen=True)
class History:
    """The list of conversations; the one that is open is ticked."""

    saved: gr.BrowserState
    picker: gr.Radio
    delete: gr.Button


def show_history(judged: bool) -> History:
    """Return the list, and the button that deletes from it; `judged` where answers can be."""
    gr.HTML("<h2>Conversations</h2>", padding=False)
    picker = gr.Radio([], label="Conversations", show_label=False, container=False, elem_id="conversations")
    delete = gr.Button("Delete this conversation", size="sm", visible=False)
    gr.HTML(f"<p>{NOTE} {KEPT if judged else NONE_KEPT}</p>", elem_classes="note", padding=False)
    return History(gr.BrowserState([], storage_key=STORAGE_KEY, secret=SECRET), picker, delete)


def connect(history: History, page: gr.Blocks, new: gr.Button, chatbot: gr.Chatbot, answering: list[Any]) -> None:
    """Let the list act: what is chosen is opened, and an answer still under way there is stopped."""
    saved, picker, delete = history.saved, history.picker, history.delete
    _act(page.load, "list", [saved], [picker])
    _act(picker.input, "open", [saved, picker], [chatbot, delete], cancels=answering)
    _act(new.click, "begin", [], [picker, chatbot, delete], cancels=answering)
    _act(delete.click, "remove", [saved, picker], [saved, picker, chatbot, delete], cancels=answering)


def save(history: History, chatbot: gr.Chatbot) -> Callable[..., Any]:
    """Return a listener for an event after which the conversation is to be kept as it is then."""
    saved, picker = history.saved, history.picker
    return lambda event: _act(event, "save", [saved, picker, chatbot], [saved, picker, history.delete])


def _act(event: Callable[..., Any], name: str, inputs: list[Any], outputs: list[Any], **more: Any) -> Any:
    """Let a function of page.js run, which asks the server nothing."""
    run = f"(...values) => tunesmith.{name}(...values)"
    return event(None, inputs, outputs, js=run, queue=False, **HIDDEN, **more)
