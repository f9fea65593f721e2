"""Repositories in restic's format, version 2: restic itself reads, checks, mounts and prunes what is written here.

This package imports nothing else of ours. The format is described in restic's `doc/design.rst`; where that is silent,
docstrings here say what was learned from.
"""
