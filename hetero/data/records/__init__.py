"""From files to records, each with its place.

formats    `format_of` says what the files of a source are, `readable` which of them are read
reading    `records` reads one of them
record     `DataRecord`, `RecordPlace`
tokenized  those whose tokens others have made
"""
