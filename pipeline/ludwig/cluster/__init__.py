"""Data-parallel training with Ludwig's trainer: `backend: {type: ray}` in a config.

Ludwig's own Ray backend converts the data to Dask, re-reads it through Ray Data and scales the learning rate with the
number of workers. Here the driver prepares the data and evaluates the result with Ludwig, as in a local run. Only the
training loop runs elsewhere: Ray Train starts the workers, and each runs Ludwig's trainer over its share of each batch.
Nothing here loads Ray or Ludwig before it is used.
"""
