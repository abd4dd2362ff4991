"""Who trains next: a pure policy over plain values, and the bookkeeping that feeds it from the store."""
