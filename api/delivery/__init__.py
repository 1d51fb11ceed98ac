"""Forwarding: what is owed to an authority's endpoint is sent until it is delivered or dead.

`outbox` is the queue, `policy` decides, `channels` send, `worker` runs them. It takes no reports in
and serves no HTTP.
"""
