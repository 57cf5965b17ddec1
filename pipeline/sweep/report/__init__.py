"""The report of a sweep: page, table, parameter importance, advice."""
