"""Text in, samples out: the same on every host.

source           `prepare` makes files of tokens out of sources
prepared         `Prepared`, what came of it
kind             whether they become one stream of bytes, or documents
corpus.Corpus    the files of a source
source_files     `SourceFiles`: those of them that hold records, and a digest of all
written          what runs write, which is text of no source
records/         files as records
tokenizing/      records as tokens
documents/       tokens as documents, made once and kept
stream           `TokenStream`: bytes as samples of one length
document_stream  `DocumentStreams`: documents as samples, side by side or padded
text             either of the two, as a rank opens it, and their orders
split, mixture   which samples are for training, and which are held out; of one source, and of several by weight
batches          samples as tensors
look             samples as text
options          `DataOptions` of a job
errors           `DataError`, `RecordError`
"""
