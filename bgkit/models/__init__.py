"""Models: loading, devices, chat templates, policies that sample, and a notebook's set-up."""
