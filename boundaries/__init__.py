"""Boundary data: reading, repairing, building. The service imports `dataset` only."""
