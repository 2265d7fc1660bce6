"""The stages, a file each, and what they run in."""
