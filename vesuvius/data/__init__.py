"""What exists and where to crop: volumes, crops, phantom, data tools. Knows nothing of models."""
