"""What Terroir's speed, memory and picture quality are, measured against named peers in the same run."""
