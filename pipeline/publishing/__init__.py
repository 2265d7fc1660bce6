"""What of a model leaves: its card, its licences, the Hub."""
