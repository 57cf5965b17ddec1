"""Image encoders that pneumo registers with Ludwig. Importing a module here registers its encoder."""
