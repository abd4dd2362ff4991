"""Server kit shared by the services."""
