"""What every part stands on: errors, files, words."""
