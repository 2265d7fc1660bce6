"""All that talks to llama.cpp: a model, its prompts, batches and memory."""
