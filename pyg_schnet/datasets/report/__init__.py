"""What `pyg-schnet data` shows: statistics of a data set and sanity checks of its numbers."""
