"""What moves of an adapter: aliases with canaries, deprecations, presets and samples, and who changed them."""
