"""The Ray cluster of a training: one that is started for it, or one that is joined."""
