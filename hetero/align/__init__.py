"""Whether two ways of computing one model agree: unit by unit, and where one does not, operator by operator.

source.Source          a model with its weights: a Hugging Face directory, or a checkpoint of a run
aligned.aligned        a model against what a person names: an `Alignment` of alignment
reference.Reference    what a model is compared with: here that of transformers, and another model of ours
planned                ranks of a plan, emulated on this host: watched_rank is their program
comparison             how its units and operators are judged
as_table, as_page      an alignment for people; as_data for programs
errors                 what cannot be compared
"""
