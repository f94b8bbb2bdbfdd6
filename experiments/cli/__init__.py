"""What the programs share: flags, requests, progress."""
