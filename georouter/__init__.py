"""The pure core: coordinate in, decision out. No framework, no clock, no logging, no network."""
