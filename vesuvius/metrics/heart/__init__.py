"""Scores of hearts: at points, on dense grids, between surfaces."""
