"""A project's first hour: demo, init, doctor."""
