"""What attention is (`maps`), where it is read (`taps`), and which layers stand for which (`layers`, `pairs`)."""
