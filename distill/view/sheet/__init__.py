"""The sheet: one picture per image, a row per pair of layers."""
