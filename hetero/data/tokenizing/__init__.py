"""From records to tokens.

tokenizer       `Tokenizer`, `Passage`, `Encoded`
loading         `load_tokenizer`, by what the job file says
byte_tokenizer  `END_OF_DOCUMENT`, and the tokenizer that is always there
directory       the files of a model's tokenizer, and what they make
passages        `Passages`: what of a record is learnt, as text
chat_template   `ChatTemplate`: a model's own way to write down a chat
"""
