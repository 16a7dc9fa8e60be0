"""What serves a character: the command, the server, and the studio that both draw with."""
