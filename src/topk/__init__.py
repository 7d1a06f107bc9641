"""
The best items of a catalogue by inner product with each user's vector: exact, and the same bits in every batch.

This package knows vectors and rows, and nothing of features, models or requests.
"""
