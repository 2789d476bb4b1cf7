"""The live road of a stream on Trio: watcher, tail, workers, sequencer, ring."""
