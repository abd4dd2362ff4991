"""Who calls, and whether they may: credentials, the access file, each method's policy, rate limits."""
