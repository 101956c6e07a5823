"""The only package that knows Hydra and OmegaConf."""
