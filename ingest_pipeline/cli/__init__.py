"""The command line: thin calls into the other folders."""
