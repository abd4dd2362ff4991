"""Training: configurations, the engine that trains, and the jobs that Ray schedules."""
