"""The only SQL. One function is one statement (or one pipeline: one round trip, one transaction) named by its verb.

Functions take a connection and plain values and return records of the domain. A lost race is a return value.
"""
