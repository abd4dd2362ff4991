"""What training costs: by its own components, beside other trainers, in memory, for checkpoints and for starting."""
