"""A prepared split as the model will read it, on the terminal and as a page."""
