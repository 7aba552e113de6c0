"""How a record is asked, how an answer is read, which metrics judge it.

A task is a plain object that follows :class:`medtune.types.Task`; :mod:`medtune.tasks.asking` holds what the built-in ones
share, :mod:`medtune.tasks.reading` turns text into facts (yes or no, a position, an area, a finding, boxes, JSON).
"""
