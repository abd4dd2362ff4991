"""Ray as the service sees it: a cluster that an operator named, or a local one."""
