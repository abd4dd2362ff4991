"""Who may draw now, who waits, who is refused, and what a drawing will cost."""
