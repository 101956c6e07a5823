"""Networks: plain `torch.nn.Module`, no Lightning, no Hydra."""
