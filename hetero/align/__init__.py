"""Whether two ways of computing one model agree: unit by unit, and where one does not, operator by operator.

source.Source          a model with its weights: a Hugging Face directory, or a checkpoint of a run
reference              what it is compared with
alignment.align        the comparison, an `Alignment`
tolerance.Tolerance    how far apart numbers of a type may be
as_table, as_page      the comparison for people
errors                 what cannot be compared
"""
