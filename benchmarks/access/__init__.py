"""What protecting a call costs."""
