"""Models: loading, devices, chat templates, adapters, and policies that sample."""
