"""Quantization: weights as packed integers of a few bits, with a scale for each group of them."""
