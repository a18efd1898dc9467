"""Text in, samples out: the same on every host.

source         `prepare` makes the one file of tokens of a `Prepared` text
corpus.Corpus  the documents of a source
written        what runs write, which is text of no source
stream         `TokenStream`: that file as samples of one length
split          which of them are for `Training`, and which are `HeldOut`
batches        samples as tensors
options        `DataOptions` of a job
errors         `DataError`
"""
