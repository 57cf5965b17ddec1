"""Data-parallel training with Ludwig's trainer: `backend: {type: ray}` in a config.

Ludwig's own Ray backend converts the data to Dask, re-reads it through Ray Data and scales the learning rate with the
number of workers. Here Ludwig prepares the data and evaluates the result in the driver, as in a local run, and only
its training loop goes elsewhere: Ray Train starts the workers, each runs Ludwig's trainer over its share of each batch.
Nothing here loads Ray or Ludwig before it is used.
"""
