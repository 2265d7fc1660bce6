"""What prepare tells people: reports/data.html, its figures, and the card of the data set."""
