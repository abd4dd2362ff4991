"""One module an area, each with `rows(bench)`."""
