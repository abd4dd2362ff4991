"""Families of base models: what SD 1.x and SDXL do differently."""
