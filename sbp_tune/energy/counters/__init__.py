"""Hardware readers. Each file reads one kind of hardware and offers `Counter`; `machine` puts them together.

A new counter is one new file here and one new entry in `machine`'s list.
"""
