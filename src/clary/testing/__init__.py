"""For tests, ours and users': fake clock, fake driver, the wire server in process, strategies from shapes."""
