"""Image files to gray pixels and descriptors."""
