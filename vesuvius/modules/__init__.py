"""LightningModules: receive model, loss, metrics, optimizer; know no task code of others."""
