"""The ways in which publishers give their data: one file for each protocol."""
