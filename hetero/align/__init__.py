"""Whether two ways of computing one model agree: unit by unit, and where one does not, operator by operator.

source.Source          a model with its weights: a Hugging Face directory, or a checkpoint of a run
reference.aligned      a model against what a person names: an `Alignment` of alignment
comparison             how its units and operators are judged
tolerance.Tolerance    how far apart numbers of a type may be
as_table, as_page      an alignment for people; as_data for programs
errors                 what cannot be compared
"""
