"""The dashboard: a store's studies as pages, as JSON and as a stream of news. It reads; it holds no truth."""
