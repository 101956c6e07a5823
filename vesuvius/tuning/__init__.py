"""Search over chains of post-processing on saved predictions, with guards against over-fitting."""
