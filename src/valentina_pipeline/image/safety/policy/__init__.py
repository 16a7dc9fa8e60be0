"""The word policy: what a prompt may not ask for, in the languages that data/ has lists of."""
