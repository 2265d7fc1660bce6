"""What is told of a run: to MLflow, and on a terminal."""
