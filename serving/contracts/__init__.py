"""What all packages of the service share: errors, answer schemas, settings."""
