"""Commands that need no Kedro: generate, serve, verify, consistency."""
