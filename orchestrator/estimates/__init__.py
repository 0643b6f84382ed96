"""Estimates: one file per question, pure functions of arrays. The seed is the unit of replication."""
