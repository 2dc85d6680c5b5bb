"""One WebSocket: dialled, tunnelled, secured, upgraded, read in batches, written in whole frames.

What belongs elsewhere: the bytes of a frame (`core/frames.py`), what a message means (`wire/`).
"""
