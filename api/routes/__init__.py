"""The HTTP resources, one module each: parse, call, shape."""
