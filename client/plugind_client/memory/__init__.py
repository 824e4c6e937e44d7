"""A plugind in memory, for unit tests of programs that use it: the messages of the API in, the messages out.

It keeps a registry, holds, a history and a ledger, and asks a test's own answers instead of running plugins. It has no
jail, verifies no signature and knows no policy beyond states, stages and holds. It imports no gRPC.
"""
