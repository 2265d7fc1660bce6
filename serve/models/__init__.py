"""The models that are served: where they come from, what is known of them."""
