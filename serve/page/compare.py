"""The tab to ask two models at once, and to say which answer is better."""

import html
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import gradio as gr

from llama.errors import RequestError
from llama.thoughts import Thoughts
from llama.types import Sampling
from serve.canary import Canary
from serve.engine import Engine, Piece, given_by
from serve.feedback import Answer, ComparisonRecord, ModelVersion
from serve.merging import merged
from serve.models.registry import Model
from serve.page import feedback_panel as judging
from serve.page.answers import conversation, draw, figures, timings
from serve.page.chat import ANSWERING, FAILED, MATH
from serve.page.controls import BUSY, IDLE, question_box, sampling, unchecked
from serve.page.feedback_panel import HIDDEN, WHO
from serve.page.remembered import Answers
from serve.page.visits import read_visit
from serve.settings import Settings

VOTES = {"left": "A is better", "tie": "Tie", "both_bad": "Both bad", "right": "B is better"}
PLACES = ("Answer A", "Answer B")  # left and right of each other, or one above the other
WAITS = "waits until the other one is done"
ALONE = """### One model is no match
There is one model here, and a comparison takes two. Put another GGUF file into the folder that `SERVE_MODELS` names:
the model that this one was tuned from, for instance, or the same in another quantization (`export.quantizations`).
Then start the server again."""
IN_TURN = (
    "Memory holds one model at a time here, with the adapters over it: others answer one after the other, and the "
    "second one's waiting counts in its times. With SERVE_MAX_LOADED_MODELS=2 they answer at once."
)


class Compare:
    """The tab's widgets and what they do."""

    def __init__(self, engine: Engine, canary: Canary, settings: Settings, answers: Answers | None) -> None:
        """Compare over an engine; without `answers` there is no vote."""
        self._engine, self._settings, self._answers = engine, settings, answers
        names = list(engine.models)
        others = [name for name in names if name != engine.default] or names
        other = canary.candidate or others[-1]
        with gr.Row(elem_id="pair"):
            self.models = [
                unchecked(gr.Dropdown(names, value=name, label=label, filterable=False))
                for name, label in ((engine.default, "One model"), (other, "The other"))
            ]
            self._blind = gr.Checkbox(
                answers is not None,
                label="Blind: which model is which is shown after the vote",
                visible=answers is not None,
                elem_id="blind",
            )
        self._message = question_box("Question for both", "Ask both…", elem_id="question")
        if settings.max_loaded_models == 1 and len({model.base or name for name, model in engine.models.items()}) > 1:
            gr.HTML(f"<p>{IN_TURN}</p>", elem_classes="note", padding=False)
        with gr.Row(elem_id="answers"):
            self._heads, self._texts = zip(*(self._side(place) for place in PLACES), strict=True)
        self._vote_row = gr.Row(visible=False, elem_id="votes")
        with self._vote_row:
            self._votes = {vote: gr.Button(label, size="sm", min_width=120) for vote, label in VOTES.items()}
        self._why = judging.show_why(answers) if answers else None
        self._told = gr.JSON(visible=False)  # how far both have come, for page.js
        self._compared = gr.State("")  # the record's id
        self._visit = gr.JSON(visible=False)  # who votes

    @staticmethod
    def _side(place: str) -> tuple[gr.HTML, gr.Markdown]:
        with gr.Column(min_width=300, elem_classes="side"):
            return gr.HTML(head(place), padding=False), gr.Markdown(latex_delimiters=MATH, elem_classes="answer")

    def connect(self, controls: Sequence[Any]) -> None:
        """Let the widgets act."""
        message, why = self._message, self._why.widgets if self._why else []
        shown = [*self._heads, self._told, message, self._vote_row, *self._votes.values(), self._compared, *why]
        submission = message.submit(self._ask, [message, self._blind, *self.models, *controls], shown, **ANSWERING)
        draw_both = "(told) => tunesmith.compare(told)"
        self._told.change(None, self._told, list(self._texts), js=draw_both, queue=False, **HIDDEN)
        message.stop(lambda: gr.update(**IDLE), None, message, cancels=[submission], queue=False, **HIDDEN)
        for vote, button in self._votes.items():
            voted = [*self._heads, *self._votes.values(), *why]
            button.click(self._voting(vote), [self._visit, self._compared], voted, js=WHO, queue=False, **HIDDEN)

    async def _ask(
        self, text: str, blind: bool, one: str, other: str, system: str, *drawing: Any
    ) -> AsyncIterator[dict[Any, Any]]:
        """Yield both answers as far as they have come, and the vote when they are whole."""
        if isinstance(text, str) and not text.strip():
            return
        models, how = [one, other], sampling(*drawing)
        messages = conversation(system, [{"role": "user", "content": text}])
        blind = bool(blind and self._answers)
        if blind:
            random.shuffle(models)
        names: Sequence[str] = PLACES if blind else models
        at_once = answer_at_once(one, other, self._engine.models, self._settings)
        second = "…" if at_once else WAITS  # the left one is asked first
        yield {
            **self._states(self._heads, [head(names[0], "…"), head(names[1], second)]),
            self._told: [None, None],
            self._message: gr.update(**BUSY),
            self._vote_row: gr.update(visible=False),
            **(self._states(self._why.widgets, judging.close()) if self._why else {}),
        }
        latest: dict[int, tuple[str, Piece] | Exception] = {}
        answers = [draw(self._engine, model, messages, how) for model in models]
        async with aclosing(merged(answers)) as drawn:
            async for place, state in drawn:
                latest[place] = state
                if not blind and isinstance(state, tuple):
                    names = [given_by(state[1]).title if side == place else name for side, name in enumerate(names)]
                head_state = head(names[place], _caption(state))
                yield {self._heads[place]: head_state, self._told: [_told(latest.get(side)) for side in range(2)]}
        ended = {self._message: gr.update(**IDLE)}
        left, right = latest.get(0), latest.get(1)
        if self._answers and isinstance(left, tuple) and isinstance(right, tuple):
            ended |= self._open_vote(messages, how, (left, right), blind)
        yield ended

    def _open_vote(
        self,
        messages: Sequence[Any],
        how: Sampling,
        sides: tuple[tuple[str, Piece], tuple[str, Piece]],
        blind: bool,
    ) -> dict[Any, Any]:
        models = [given_by(piece) for _, piece in sides]
        left, right = (
            Answer(text, ModelVersion(model.name), timings(piece))
            for model, (text, piece) in zip(models, sides, strict=True)
        )
        record = ComparisonRecord(messages=messages, sampling=asdict(how), left=left, right=right, blind=blind)
        assert self._answers  # noqa: S101
        self._answers.remember(record, *models)
        plain = [gr.update(variant="secondary")] * len(self._votes)
        return {
            self._vote_row: gr.update(visible=True),
            self._compared: record.id,
            **self._states(self._votes.values(), plain),
        }

    def _voting(self, vote: str) -> Any:
        def keep(told: object, record_id: str) -> dict[Any, Any]:
            """Keep the vote, and show whose answers they were."""
            assert self._answers  # noqa: S101
            assert self._why  # noqa: S101
            try:
                earlier = self._answers.get(record_id)
                # Whoever votes otherwise than before has seen the names by then.
                blind = isinstance(earlier, ComparisonRecord) and earlier.blind and earlier.vote in (None, vote)
                record = self._answers.judge(record_id, read_visit(told), vote=vote, blind=blind, reasons=())
            except RequestError as error:
                return self._states(self._why.widgets, judging.refuse(error))
            assert isinstance(record, ComparisonRecord)  # noqa: S101
            chosen = [gr.update(variant="primary" if name == vote else "secondary") for name in self._votes]
            return {
                **self._states(self._heads, [revealed(record.left), revealed(record.right)]),
                **self._states(self._votes.values(), chosen),
                **self._states(self._why.widgets, judging.ask(record, "bad" if vote == "both_bad" else "good")),
            }

        return keep

    @staticmethod
    def _states(widgets: Any, states: Sequence[Any]) -> dict[Any, Any]:
        return dict(zip(widgets, states, strict=True))


def answer_at_once(one: str, other: str, models: Mapping[str, Model], settings: Settings) -> bool:
    """Return whether two models answer at once, and not one after the other, as adapters over one base do."""
    bases = {models[name].base or name for name in (one, other) if name in models}
    return (settings.slots if len(bases) == 1 else settings.max_loaded_models) > 1


def _caption(state: tuple[str, Piece] | Exception) -> str:
    return "no answer" if isinstance(state, Exception) else figures(timings(state[1]))


def _told(state: tuple[str, Piece] | Exception | None) -> dict[str, Any] | None:
    """Return what page.js shows of an answer."""
    if isinstance(state, Exception):
        return {"text": str(state) if isinstance(state, RequestError) else FAILED}
    if state is None:
        return None
    text, piece = state
    thoughts = Thoughts(piece.thinking)
    thought, said = thoughts.take(text, last=bool(piece.finish))
    return {"thought": thought, "text": said, "thinking": thoughts.within and not piece.finish}


def head(name: str, caption: str = "") -> str:
    """Return what stands over an answer: whose it is, and its figures."""
    return f"<h3>{html.escape(name)}</h3><p>{html.escape(caption)}</p>"


def revealed(answer: Answer) -> str:
    """Return the same with the model's name, after the vote."""
    return head(answer.model.name, figures(answer.timings) if answer.timings else "")
