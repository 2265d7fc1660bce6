"""How models are measured: loss, questions with known answers, prompts, the report."""
