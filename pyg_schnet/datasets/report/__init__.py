"""Report of `pyg-schnet data`: statistics of a data set and sanity checks of its numbers."""
