"""CDF's HTTP API on top of the rules: requests, answers, tokens, and the thread that keeps time."""
