"""Pages of the service: the upload page and the drift dashboard."""
