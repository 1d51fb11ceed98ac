"""The running service: HTTP API, storage and forwarding."""
