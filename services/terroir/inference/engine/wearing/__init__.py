"""What layers wear: adapters on the device, stacks of them, and the plans by which a batch mixes stacks."""
