"""Models and their tokenizers: found, loaded, described; conversations as token ids."""
