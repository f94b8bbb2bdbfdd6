"""What the programs share: flags, requests, training, evaluation, progress."""
