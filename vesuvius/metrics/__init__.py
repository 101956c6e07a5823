"""Scores: functional NumPy core and thin torchmetrics classes."""
