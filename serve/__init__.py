"""The chat server: GGUF models through llama.cpp on a CPU, a page in the browser. Start it with `python -m serve`."""

import os

# Nothing tells its makers that it was used: huggingface_hub and MLflow heed this; both read it when they are imported.
os.environ.setdefault("DO_NOT_TRACK", "true")
