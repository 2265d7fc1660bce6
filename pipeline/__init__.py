"""One configuration becomes a model: stages, commands, and what they are made of."""
