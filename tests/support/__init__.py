"""Helpers that tests share. Fixtures are in the `conftest.py` files."""
