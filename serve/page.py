"""The page: a chat on Gradio. Its chat also answers programs (gradio_client, api_name="/chat").

Every limit is checked by the engine; the widgets' own ranges are for the eye.
"""

import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported

import gradio as gr
from fastapi import FastAPI
from gradio.components import Component

from serve.engine import Engine, Piece
from serve.errors import RequestError
from serve.limits import Message, Sampling
from serve.settings import Settings

TITLE = "Tunesmith"
EXAMPLES = [
    "What is 5 + 6?",
    "What is the capital of France?",
    "How many 'r's are in the word 'strawberry'?",
    "Continue the Fibonacci sequence: 1, 1, 2, 3, 5, 8,",
]
REDRAW_SECONDS = 0.05  # the page is redrawn at most this often: each redraw takes CPU time from the model
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")  # the visitor's own: nothing is fetched
MONO = ("ui-monospace", "SFMono-Regular", "Consolas", "monospace")
CSS = """
.gradio-container { width: 100%; max-width: 860px !important; margin: 0 auto !important; }
#head { align-items: center; flex-wrap: wrap; }
#title h1 { font-size: 1.6rem; margin: 0; letter-spacing: -0.02em; }
#model { max-width: 340px; margin-left: auto; }
@media (max-width: 500px) { #model { flex-basis: 100%; max-width: none; } }
#chat { border: 1px solid var(--border-color-primary); }
#chat .examples { max-width: min(540px, 100%); }
#chat .example { border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg); }
#chat .example:hover { border-color: var(--color-accent); }
.figures { color: var(--body-text-color-subdued); font-size: 0.8rem; }
"""


def mount_page(app: FastAPI, engine: Engine, settings: Settings) -> FastAPI:
    """The application with the page at /, where nothing mounted before it answers."""
    return gr.mount_gradio_app(
        app,
        build_page(engine, settings).queue(max_size=settings.queue, default_concurrency_limit=settings.slots),
        path="/",
        auth=tuple(settings.login.split(":", 1)) if settings.login else None,
        theme=gr.themes.Soft(primary_hue="teal", neutral_hue="slate", radius_size="lg", font=FONT, font_mono=MONO),
        css=CSS,
        footer_links=[],
        run_history=False,
        show_error=False,  # of the program's own errors; those meant for the visitor are shown all the same
    )


def build_page(engine: Engine, settings: Settings) -> gr.Blocks:
    """The model picker above the chat, the other settings folded away below it."""
    with gr.Blocks(title=TITLE, fill_height=True, analytics_enabled=False) as page:
        with gr.Row(elem_id="head"):
            gr.HTML(f"<h1>{TITLE}</h1>", elem_id="title")
            model = _model_picker(engine)
        gr.ChatInterface(
            chat_function(engine),
            chatbot=gr.Chatbot(show_label=False, scale=1, min_height=320, buttons=["copy"], elem_id="chat"),
            textbox=gr.Textbox(
                label="Message",
                placeholder="Type a message…",
                max_length=settings.max_chars,
                scale=7,
                autofocus=True,
                submit_btn="Send",
                stop_btn="Stop",
            ),
            additional_inputs=[_unchecked(widget) for widget in (model, *_settings_widgets(settings))],
            additional_inputs_accordion=gr.Accordion("Settings", open=False, render=False),
            examples=[[example] for example in EXAMPLES],
            cache_examples=False,
            flagging_mode="never",
            analytics_enabled=False,
            api_name="chat",
        )
    return page


def _model_picker(engine: Engine) -> gr.Dropdown:
    return gr.Dropdown(
        [(model.label, name) for name, model in engine.models.items()],
        value=engine.default,
        label="Model",
        show_label=False,
        container=False,
        filterable=False,
        elem_id="model",
    )


def _settings_widgets(settings: Settings) -> list[Component]:
    return [
        gr.Textbox("", label="System prompt", placeholder="none", lines=2, max_length=settings.max_chars, render=False),
        gr.Slider(
            0,
            settings.temperature_max,
            min(0.3, settings.temperature_max),
            step=0.05,
            label="Temperature",
            render=False,
        ),
        gr.Slider(
            1, settings.max_tokens, min(256, settings.max_tokens), step=1, precision=0, label="Max tokens", render=False
        ),
    ]


def _unchecked(widget: Component) -> Component:
    """The widget without Gradio's own check, which logs a traceback for each bad value that a program sends."""
    widget.preprocess = lambda payload: payload  # type: ignore[method-assign]
    return widget


def chat_function(engine: Engine) -> Callable[..., AsyncIterator[dict]]:
    """The function that Gradio calls for each message. Gradio cancels its task when the visitor stops it or leaves."""

    async def chat(
        message: str, history: list[dict], model: str, system: str, temperature: float, max_tokens: int
    ) -> AsyncIterator[dict]:
        """Answer a message with a model, within the server's limits."""
        text, drawn = "", 0.0
        sampling = Sampling(max_tokens, temperature)
        try:
            async for piece in engine.astream(model, conversation(system, history, message), sampling):
                text += piece.text
                if piece.finish or time.monotonic() - drawn >= REDRAW_SECONDS:
                    drawn = time.monotonic()
                    yield reply(text, piece)
        except RequestError as error:
            raise gr.Error(str(error), title="No answer", print_exception=False) from None

    return chat


def conversation(system: str | None, history: Sequence[dict], message: str) -> list[Message]:
    """The messages for the model from Gradio's history.

    A question that was left without an answer (stopped at once, refused) is left out: in training each had one.
    """
    turns = [(turn["role"], _text(turn["content"])) for turn in history]
    turns.append(("user", message))
    if system and str(system).strip():
        turns.insert(0, ("system", system))
    kept = [turn for turn, following in pairwise(turns) if not turn[0] == following[0] == "user"]
    return [{"role": role, "content": content} for role, content in [*kept, turns[-1]]]


def _text(content: Any) -> Any:
    """The text of a message of Gradio's; of an answer's two parts, that is the first (see `reply`)."""
    if isinstance(content, list):
        content = content[0] if content else ""
    return content.get("text") if isinstance(content, dict) else content


def reply(text: str, piece: Piece) -> dict:
    """An answer for Gradio's chat: the text, and a line of figures below it."""
    figures = f"{piece.tokens} tokens · {piece.seconds:.1f} s · {piece.tokens_per_second:.0f} tokens/s"
    parts = [text, f'<span class="figures">{figures}</span>']
    return {"role": "assistant", "content": [{"type": "text", "text": part} for part in parts]}
