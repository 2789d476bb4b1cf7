"""Playing recordings: to standard output in three formats, or to the feed.

`bounds`, `formats` and `pace` are pure; `playback` is the log that is played, `pump` writes it to standard output,
`broadcast` serves it.
"""
