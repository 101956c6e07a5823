"""Labelled hearts: label maps, prepared cases (npz), phantom, data module; no models."""
