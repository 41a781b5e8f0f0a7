"""U-Nets: trained with Lightning, on data, losses and metrics of MONAI. Import it through `distill.loading`."""
