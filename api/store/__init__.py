"""The SQL of the API: fixed statements, table by table, each a function of a connection.

Callers own the transaction unless a function says that its statement is one. Rows come back as
asyncpg records; what they mean is decided in the rooms above.
"""
