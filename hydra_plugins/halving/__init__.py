"""Hydra's sweeper of Tunesmith: grids and successive halving over any launcher, gone on with after a kill."""
