"""The server on its port: OpenAI's API, limits, figures."""
