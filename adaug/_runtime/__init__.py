"""What every other folder stands on: checks of arguments and states, random streams, ranks, plain geometry."""
