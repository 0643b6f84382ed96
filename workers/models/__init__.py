"""Seed-batched model families, and the plain modules that are their oracle."""
