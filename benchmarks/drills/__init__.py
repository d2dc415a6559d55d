"""Drills: faults made on purpose, each with a table of figures of what they cost."""
