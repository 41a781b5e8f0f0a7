"""`distill bench`: the same student trained in several ways over paired seeds, and what the differences show."""
