"""The chat server: GGUF models through llama.cpp on a CPU, a page in the browser. Start it with `python -m serve`."""
