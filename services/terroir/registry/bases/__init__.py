"""Base models, registered from folders or by an operator."""
