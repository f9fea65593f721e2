"""The guard keeps the directories as declared: it watches for drift and repairs it.

Events are hints, the scan is the truth: `watch` only says where to look soon, `reconcile` looks, `drift` decides,
`repair` acts, and `guard` is the loop that brings them together.
"""
