"""The command lines: each parses, calls one function of the other rooms, and sets the exit code."""
