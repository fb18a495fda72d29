"""What is served now: the published index, its versions, and the switch to another."""
