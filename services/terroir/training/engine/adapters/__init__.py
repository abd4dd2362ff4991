"""The layers that are trained: which they are, how PEFT puts them in, and their canonical form."""
