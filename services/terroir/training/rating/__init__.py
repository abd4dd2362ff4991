"""Blind rating: sheets of real and generated pictures without names, people's answers, and what they amount to."""
