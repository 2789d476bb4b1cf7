"""How fast hyperwatch is, beside what could be at all: `make bench`.

The coordinator (`__main__`) plays the node; servers, clients and baselines are processes of their own on loopback. Two
figures are only ever compared within one run, their turns alternating: the machine is shared, and noisy.
"""
