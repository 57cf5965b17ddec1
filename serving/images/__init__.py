"""From the bytes of an image file to gray pixels and descriptors."""
