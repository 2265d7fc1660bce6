"""Stages in containers: what an engine and its image must be, what a container is given, how one runs and ends."""
