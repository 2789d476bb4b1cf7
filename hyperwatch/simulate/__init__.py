"""A node that is not there: `market` makes up what happens, `writer` writes it to files as a node would."""
