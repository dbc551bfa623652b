"""Evaluation of the general potential of organic molecules against its teacher."""
