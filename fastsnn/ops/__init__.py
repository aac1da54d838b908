"""One file per family: the operation's types and checks, its autograd.Function and its functional entry."""
