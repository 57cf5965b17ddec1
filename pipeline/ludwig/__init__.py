"""The seam to Ludwig: the only package that imports it.

Importing a module here may load Ludwig; importing this package does not.
"""
