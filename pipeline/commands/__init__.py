"""What a user calls by name."""
