"""Errors, problem documents, answer schemas and settings: shared by all packages of the service."""
