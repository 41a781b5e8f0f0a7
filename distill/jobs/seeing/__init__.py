"""What `distill heatmap` and a timeline do: look, measure, and leave it in a folder."""
