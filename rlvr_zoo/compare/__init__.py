"""Many runs of one protocol: what to run, and running it."""
