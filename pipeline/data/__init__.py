"""Data sets of radiographs: import, splits, audit, synthetic images, downloads, versions."""
