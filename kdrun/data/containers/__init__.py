"""Tables, Parquet files and tar shards: which images they list."""
