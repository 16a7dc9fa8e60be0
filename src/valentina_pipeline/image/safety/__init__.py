"""Safety: prompts and images that are refused."""
