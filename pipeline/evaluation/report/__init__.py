"""Reports as one HTML page with tables and curves, and the same figures as JSON and CSV."""
