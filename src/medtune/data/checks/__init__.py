"""What ``validate`` looks for: one file for each family of checks, over one pass through the rows and one through the pictures.

A check keeps no Python object for a row or a picture, only fixed-width columns: see :mod:`medtune.data.checks.check`.
"""
