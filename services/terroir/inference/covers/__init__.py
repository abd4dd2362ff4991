"""Covers that are there before anybody asks: looked up in milliseconds, drawn in rows that nobody else uses."""
