"""Access control: API keys, rate limits, client addresses, security headers."""
