"""A turn as a scope: what it says, the inbox of its events, the stream that its reader has.

What belongs elsewhere: which socket takes it (`connection/`), what came before (`conversation/`).
"""
