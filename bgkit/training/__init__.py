"""Training: one GRPO run, its prompts and settings, and the memory and time it needs."""
