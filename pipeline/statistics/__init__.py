"""How sure a figure is: intervals of one sample, bounds that hold at every number of rows, and pairs."""
