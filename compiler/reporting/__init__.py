"""Reports to look at: one HTML page without scripts or network, and a model card. Plain data in, text out; no torch."""
