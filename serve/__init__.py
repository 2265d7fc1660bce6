"""The chat server: GGUF models through llama.cpp on a CPU, a page in the browser. Start it with `python -m serve`."""

import os

# llama.cpp's OpenMP threads spin while they wait, which costs up to 5 x as soon as the cores are shared with anything
# else. OpenMP reads this once, when its library is loaded: so here, before any module of this package loads llama.cpp.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Nothing tells its makers that it was used: huggingface_hub and MLflow heed this; both read it when they are imported.
os.environ.setdefault("DO_NOT_TRACK", "true")
