"""Runs that were trained elsewhere: tables and logs become studies like any other."""
