"""Exported files made again, and what differs."""
