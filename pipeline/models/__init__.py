"""Where a base model is found."""
