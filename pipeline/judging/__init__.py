"""Which of two replies is better, as an endpoint judges that one names, and as visitors of the chat did."""
