"""pneumo."""
