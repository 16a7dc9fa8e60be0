"""Safety: filters that reject prompts and images."""
