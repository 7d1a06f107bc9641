"""The command line: every verb of `./run.sh` with its options, in a module for each group of the help."""
