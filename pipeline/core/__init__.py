"""Configuration and places that stages and commands share; but for formats.py nothing here changes what is measured."""
