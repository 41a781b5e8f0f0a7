"""Pictures: where they come from (`source`), and how they are brought into a network's input (`framing`)."""
