"""Flags: the parser, what is read from a file, checks of values, and flags that nothing reads."""
