"""The command line: one file a command, its name is the command's."""
