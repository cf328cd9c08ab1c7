"""Strategies that sample: which architectures to evaluate next, and what is learned from it.

`strategy` has what all of them are; the others are one strategy a file. None needs a device, images
or shared weights.
"""
