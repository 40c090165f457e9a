"""What a launcher leaves in the environment, held against the arguments of a run."""
