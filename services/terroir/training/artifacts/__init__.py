"""What a run reads and leaves, on Ray and without it: adapters, checkpoints, curves and samples."""
