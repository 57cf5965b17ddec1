"""The report of a run: one HTML page, tables and curves."""
