"""Everything that knows Ultralytics. Kept empty: a file here is imported only when it is needed."""
