"""Where a visitor asks, and what may be set: the system prompt, and how answers are drawn. Both tabs share it."""

from typing import Any

import gradio as gr
from gradio.components import Component

from llama.types import Sampling
from serve.settings import Settings

TEMPERATURE, MAX_TOKENS = 0.3, 256  # to begin with
IDLE: dict[str, Any] = {"submit_btn": True, "stop_btn": False}
BUSY: dict[str, Any] = {"submit_btn": False, "stop_btn": True}


def question_box(label: str, placeholder: str, **options: Any) -> gr.Textbox:
    """Return where a visitor types a question; `label` is for those who cannot see the placeholder."""
    return gr.Textbox(
        label=label,
        show_label=False,
        container=False,
        placeholder=placeholder,
        max_lines=8,
        **IDLE,
        **options,
    )


def show_controls(settings: Settings) -> list[Component]:
    """Return the system prompt's widget, then one for each value that `sampling` takes, in its order."""
    usual = Sampling()
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        system = gr.Textbox("", label="System prompt", placeholder="None", lines=3)
        temperature = gr.Slider(
            0,
            settings.temperature_max,
            min(TEMPERATURE, settings.temperature_max),
            step=0.05,
            label="Temperature",
            info="0: always the likeliest word",
        )
        tokens = gr.Slider(
            1, settings.max_tokens, min(MAX_TOKENS, settings.max_tokens), step=1, precision=0, label="Max tokens"
        )
        with gr.Accordion("More", open=False):
            top_p = gr.Slider(0, 1, usual.top_p, step=0.05, label="Top p")
            frequency = gr.Slider(-2, 2, usual.frequency_penalty, step=0.1, label="Frequency penalty")
            presence = gr.Slider(-2, 2, usual.presence_penalty, step=0.1, label="Presence penalty")
            seed = gr.Number(None, label="Seed", placeholder="Another answer each time", precision=0, minimum=0)
    return [unchecked(widget) for widget in (system, temperature, tokens, top_p, frequency, presence, seed)]


def sampling(
    temperature: Any, max_tokens: Any, top_p: Any, frequency_penalty: Any, presence_penalty: Any, seed: Any = None
) -> Sampling:
    """Return how an answer is drawn, by the widgets' values; the engine checks them."""
    return Sampling(max_tokens, temperature, seed, top_p, frequency_penalty, presence_penalty)


def unchecked(widget: Any) -> Any:
    """Return the widget without Gradio's own check, which logs a traceback for each bad value that a program sends."""
    widget.preprocess = lambda payload: payload
    return widget


def ticks(label: str, show_label: bool | None = None, elem_id: str | None = None) -> gr.CheckboxGroup:
    """Return boxes to tick, `unchecked`: by their class, since Gradio makes others of it when their choices change."""
    gr.CheckboxGroup.preprocess = lambda _, payload: payload  # type: ignore[method-assign, assignment]
    return gr.CheckboxGroup([], label=label, show_label=show_label, container=False, elem_id=elem_id)
