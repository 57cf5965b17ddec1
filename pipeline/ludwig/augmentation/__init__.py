"""Augmentations for radiographs, registered with Ludwig: each draws once per image, not once per batch.

Ludwig's own toss one coin for a whole batch. These take and return uint8 or float32 [N, C, H, W] with values in 0-255,
on any device, use torch's global random numbers, and change all channels of an image alike. Importing a module here
registers its operation, and loads Ludwig.
"""
