"""The region tree, its seasons, and the recipes that regions name."""
