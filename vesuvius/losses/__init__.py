"""Losses: plain `torch.nn.Module`, one family a file."""
