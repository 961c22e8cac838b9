"""Training: one GRPO run, a comparison of several, and what a run will need."""
