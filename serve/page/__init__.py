"""The page, on Gradio: a chat, a comparison of two models, and what is known of each.

    page/chat.py       the chat, and /chat for programs (gradio_client)
    page/compare.py    one question to two models, and a vote
    page/feedback_panel.py  why an answer was good or bad
    page/own.py        what a visitor has said, to see and delete
    page/visits.py     who judges, and that the visitor agreed to its being kept
    page/card.py       the model's card
    page/history.py    conversations in the visitor's browser, with page.js
    page/controls.py   system prompt and sampling
    page/theme.py      colours, with page.css and page.js
    page/protection.py the login for each path, and what a browser may load and run
    page/asked.py      what a page asks
    page/under_way.py  answers under way, which a page can leave and find again
    page/answers.py    the pace at which answers are drawn, and their figures
    page/remembered.py the answers lately given, for feedback

Every limit is checked by the engine; the widgets' own ranges are for the eye.
"""

import os
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported

import gradio as gr
from fastapi import FastAPI
from starlette.middleware import Middleware

from serve.canary import Canary
from serve.engine import Engine
from serve.feedback import FeedbackStore
from serve.models.cards import read_prompts
from serve.page import history
from serve.page.card import show_card
from serve.page.chat import Chat, add_endpoint, examples
from serve.page.compare import ALONE, Compare
from serve.page.controls import show_controls, unchecked
from serve.page.feedback_panel import HIDDEN
from serve.page.own import show_own
from serve.page.protection import ProtectionMiddleware
from serve.page.remembered import Answers
from serve.page.theme import THEME
from serve.settings import Settings

TITLE = "Tunesmith"
HERE = Path(__file__).parent


def mount_page(app: FastAPI, engine: Engine, settings: Settings, feedback: FeedbackStore | None = None) -> FastAPI:
    """Return the application with the page at /, where nothing mounted before it answers.

    No feedback is asked for without
    a store to keep it in.
    """
    script = (HERE / "page.js").read_text(encoding="utf-8")
    protection = Middleware(ProtectionMiddleware, script=script, settings=settings)
    return gr.mount_gradio_app(
        app,
        build_page(engine, settings, feedback).queue(max_size=settings.queue, default_concurrency_limit=settings.slots),
        path="/",
        app_kwargs={"openapi_url": None, "middleware": [protection]},
        auth=tuple(settings.login.split(":", 1)) if settings.login else None,
        theme=THEME,
        css_paths=HERE / "page.css",
        head=f"<script>{script}</script>",
        footer_links=[],
        ssr_mode=False,  # by a Node server that a Space may have, and that knows nothing of the protection
        run_history=False,
        show_error=False,  # of the program's own errors; those meant for the visitor are shown all the same
    )


def build_page(engine: Engine, settings: Settings, feedback: FeedbackStore | None = None) -> gr.Blocks:
    """Build the page: past conversations and settings at the side; chat, comparison and card in the middle."""
    canary = Canary(engine, settings)
    answers = Answers(feedback) if feedback else None
    prompts = examples(read_prompts(engine.models[engine.default]))
    with gr.Blocks(title=TITLE, fill_height=True, analytics_enabled=False) as page:
        with gr.Sidebar(open=False, width=300) as sidebar:
            past = history.show_history(judged=feedback is not None)
            controls = show_controls(settings)
        with gr.Row(elem_id="head"):
            gr.HTML(f"<h1>{TITLE}</h1>", elem_id="title", padding=False)
            new = gr.Button("New chat", size="sm", elem_id="new")
            model = unchecked(_model_picker(engine, canary))
        with gr.Tabs():
            with gr.Tab("Chat", elem_id="chat-tab"):
                chat = Chat(engine, canary, answers, prompts)
                attach = gr.Button("Attach a text file", size="sm", elem_id="attach")
            with gr.Tab("Compare", elem_id="compare-tab"):
                pickers = [model]
                if len(engine.models) > 1 or settings.canary:
                    compare = Compare(engine, canary, settings, answers)
                    compare.connect(controls)
                    pickers += compare.models
                else:
                    gr.Markdown(ALONE)
            with gr.Tab("Model", elem_id="model-tab") as card_tab:
                show_card(engine, card_tab, model)
            if answers:
                with gr.Tab("Feedback", elem_id="own-tab") as own_tab:
                    show_own(answers, own_tab)
        history.connect(past, page, new, chat, attach, model, controls, _served(engine, canary))
        known = gr.JSON(visible=False)
        told = page.load(lambda: _served(engine, canary), None, known, queue=False, **HIDDEN)  # others by now, perhaps
        learn = "(...values) => tunesmith.learn(...values)"
        told.then(None, [known, *pickers], pickers, js=learn, queue=False, **HIDDEN)
        add_endpoint(engine, chat.message, model, controls)
        page.load(None, None, sidebar, js="() => tunesmith.widen()", queue=False, **HIDDEN)
    return page


def _model_picker(engine: Engine, canary: Canary) -> gr.Dropdown:
    return gr.Dropdown(
        [choice for choice in _choices(engine) if choice[1] != canary.candidate],
        value=engine.default,
        label="Model",
        show_label=False,
        container=False,
        filterable=False,
        elem_id="model",
    )


def _choices(engine: Engine) -> list[tuple[str, str]]:
    return [(model.label, name) for name, model in engine.models.items()]


def _served(engine: Engine, canary: Canary) -> dict[str, object]:
    """Return which models there are, for page.js."""
    names = {name: model.name for name, model in engine.catalogue.by_every_name.items() if not model.embeds}
    return {"names": names, "choices": _choices(engine), "default": engine.default, "candidate": canary.candidate}
