"""Programs of the house: set-up, locks, generated files."""
