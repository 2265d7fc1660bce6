"""Processes: who started them, which of several they are, what they leave behind."""
