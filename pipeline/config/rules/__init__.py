"""Rules beyond Ludwig's schema: each refuses a config that would train, but not what its author meant."""
