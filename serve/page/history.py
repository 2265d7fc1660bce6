"""Conversations, kept in the visitor's own browser: page.js writes and reads them, and draws the one that is open."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr

from serve.feedback import CONSENT
from serve.page.chat import Chat
from serve.page.feedback_panel import HIDDEN

# Where earlier versions kept them, in Gradio's own encryption; page.js takes them over.
STORAGE_KEY, SECRET = "tunesmith-conversations", "tunesmith"
NOTE = "Your conversations stay in this browser; the server keeps"
KEPT, NONE_KEPT = "those in which you judge an answer.", "none."


@dataclass(frozen=True)
class History:
    """The list of conversations, in which the one that is open is ticked, and what can be done with them."""

    earlier: gr.BrowserState
    search: gr.Textbox
    picker: gr.Radio
    opened: gr.Group  # about the open one
    title: gr.Textbox
    export: gr.Button
    delete: gr.Button
    export_all: gr.Button
    imports: gr.Button


def show_history(judged: bool) -> History:
    """Return the list and its buttons; `judged` where answers can be."""
    gr.HTML("<h2>Conversations</h2>", padding=False)
    search = gr.Textbox(label="Search", show_label=False, placeholder="Search", container=False, elem_id="search")
    picker = gr.Radio([], label="Conversations", show_label=False, container=False, elem_id="conversations")
    with gr.Group(visible=False, elem_id="opened") as opened:
        title = gr.Textbox(label="Name of this conversation", max_lines=1)
        with gr.Row():
            export = gr.Button("Export", size="sm", min_width=80)
            delete = gr.Button("Delete", size="sm", min_width=80)
    with gr.Row():
        export_all = gr.Button("Export all", size="sm", min_width=80)
        imports = gr.Button("Import", size="sm", min_width=80)
    gr.HTML(f"<p>{NOTE} {KEPT if judged else NONE_KEPT}</p>", elem_classes="note", padding=False)
    earlier = gr.BrowserState([], storage_key=STORAGE_KEY, secret=SECRET)
    return History(earlier, search, picker, opened, title, export, delete, export_all, imports)


def connect(
    history: History,
    page: gr.Blocks,
    new: gr.Button,
    chat: Chat,
    attach: gr.Button,
    model: gr.Dropdown,
    controls: Sequence[Any],
    served: Mapping[str, object],
) -> None:
    """Let the widgets act on what the browser keeps."""
    chatbot, message, settings = chat.chatbot, chat.message, [model, *controls]
    # page.js names them in this order, in VIEW.
    view = [message, chatbot, history.picker, history.opened, history.title, *chat.why, *settings]

    def act(event: Callable[..., Any], name: str, *inputs: Any, before: str = "", outputs: Sequence[Any] = view) -> Any:
        """Let a function of page.js run, which asks the server nothing."""
        run = f"(...values) => tunesmith.{name}({before}...values)"
        return event(None, list(inputs), list(outputs), js=run, queue=False, **HIDDEN)

    known = f"{json.dumps(served)}, {json.dumps(asdict(CONSENT) if chat.why else None)}, "
    act(page.load, "start", history.earlier, before=known, outputs=[*view, history.earlier])
    act(message.submit, "ask", message, *settings)
    act(chatbot.retry, "retry", *settings)
    act(chatbot.edit, "edit", chatbot, *settings)
    act(chatbot.undo, "undo", message)
    act(chatbot.option_select, "goOn", *settings)
    chosen = chatbot.example_select(_example, None, message, queue=False, **HIDDEN)
    act(chosen.then, "ask", message, *settings)
    answering = chat.connect(model, controls)
    act(chat.told.change, "hear", chat.told, message)
    act(answering.failure, "fail", message)
    act(new.click, "begin")
    act(history.picker.input, "open", history.picker)
    act(history.delete.click, "remove")
    act(history.title.change, "rename", history.title)  # of Gradio's textbox, `input` misses what is pasted or erased
    act(history.search.change, "search", history.search)
    act(history.export.click, "exportOpen")
    act(history.export_all.click, "exportAll")
    act(history.imports.click, "importFile")
    act(attach.click, "attach", message)
    for widget in settings:
        act(widget.change, "keep", *settings)
    act(gr.Button(visible="hidden", elem_id="redraw").click, "redraw")


def _example(example: gr.SelectData) -> str:
    return str(example.value["text"])
