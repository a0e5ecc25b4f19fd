"""Places where a model serves: processes or containers on this machine, or a cluster."""
