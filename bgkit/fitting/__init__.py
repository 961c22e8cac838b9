"""Guards, reward models and judges from labels: a classifier fitted on prompts and responses."""
