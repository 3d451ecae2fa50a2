"""CODA's shard sets in plain Python, from docs/shard-format.md alone: no Rust is involved.

`draws` and `order` say which row comes when, `masks` what S1, S2, S3 and the noise level do to it,
bit for bit as the Rust side does; `shard_set` maps a set and holds it against the format.
"""
