"""The page of a sweep: what was tried, what came of it, what mattered, what it cost, and what was left out."""
