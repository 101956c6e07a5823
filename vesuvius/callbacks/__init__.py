"""Thin Lightning adapters around plain functions."""
