"""Hydra-configured PyTorch Lightning framework for reading scroll CT."""

__version__ = "0.1.0"
