"""The tab that says what is known of a model."""

import html
import logging
from collections.abc import Mapping

import gradio as gr

from common.errors import UserError
from serve.engine import Engine
from serve.models.cards import Card, Figures, read_card
from serve.page.feedback_panel import HIDDEN

MEASURED = {  # label and form of each figure
    "loss": ("Loss", "{:.4f}"),
    "perplexity": ("Perplexity", "{:.4f}"),
    "accuracy": ("Accuracy", "{:.1%}"),
    "tokens_per_second": ("Tokens/s", "{:,.0f}"),
}

logger = logging.getLogger(__name__)


def show_card(engine: Engine, tab: gr.Tab, model: gr.Dropdown) -> None:
    """Show the card of the model that is picked; read when somebody looks at it."""
    shown = gr.HTML(elem_id="card", padding=False)

    def read(name: str) -> str:
        found = engine.catalogue.get(name)
        try:
            return card_html(found.title, read_card(found)) if found else ""
        except UserError as error:  # the file was whole when the server started
            logger.error("%s", error)
            return "<p>The model's file cannot be read any more: the server's log says why.</p>"

    gr.on([tab.select, model.change], read, model, shown, queue=False, **HIDDEN)


def card_html(name: str, card: Card) -> str:
    """Return the card as two tables; what stands in a file is text here, whatever it holds."""
    facts = "".join(_row([label, text]) for label, text in card.facts.items())
    return f"<h2>{html.escape(name)}</h2><table>{facts}</table>{_evaluation(card.figures)}"


def _evaluation(figures: Mapping[str, Figures]) -> str:
    """Return a line for each figure, a column for each of whom it was measured."""
    measured = {name: [getattr(one, name) for one in figures.values()] for name in MEASURED}
    rows = [
        _row([MEASURED[name][0], *("" if v is None else MEASURED[name][1].format(v) for v in values)])
        for name, values in measured.items()
        if any(value is not None for value in values)
    ]
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *figures))
    return f'<h3>Evaluation</h3><table class="figures"><tr>{head}</tr>{"".join(rows)}</table>'


def _row(cells: list[str]) -> str:
    texts = [html.escape(cell) for cell in cells]
    return f"<tr><th>{texts[0]}</th>{''.join(f'<td>{text}</td>' for text in texts[1:])}</tr>"
