"""What to train, and the contract between the head and the workers: data, names, numpy."""
