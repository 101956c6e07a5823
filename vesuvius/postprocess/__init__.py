"""Probability to mask and sheet numbers: plain functions of NumPy arrays."""
