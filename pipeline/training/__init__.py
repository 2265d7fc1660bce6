"""How a model is tuned: engines, chat templates, checkpoints, callbacks, the resource report."""
