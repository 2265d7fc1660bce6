"""The embedded default: a small world, two tiny base models that know it, and chats about it."""
