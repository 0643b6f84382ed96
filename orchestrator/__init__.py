"""The head: where and when runs train, and what they showed."""
