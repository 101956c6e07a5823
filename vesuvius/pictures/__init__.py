"""Pictures for people: panels, curves, 3-D views. Plain functions of NumPy arrays."""
