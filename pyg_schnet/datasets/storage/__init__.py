"""The processed file of a data set: written as a stream, checked, read in memory or mapped."""
