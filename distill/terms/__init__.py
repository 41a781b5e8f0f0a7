"""What is compared between student and teacher: one file per loss term."""
