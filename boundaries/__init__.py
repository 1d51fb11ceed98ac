"""Boundary data: reading, repairing, building and versioning. The service imports `dataset` only."""
