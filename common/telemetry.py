"""Nothing tells its makers that it was used."""

import os


def send_nothing() -> None:
    """Ask libraries to send no statistics: the Hugging Face ones, MLflow and Gradio read this when they are loaded."""
    os.environ.setdefault("DO_NOT_TRACK", "true")
