"""Immutable versions on any fsspec path, append-only records, and what rests on them: the catalog and the registry."""
