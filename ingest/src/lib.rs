//! Sources to shards: `source → decode → record → tokenize → pack → write`.

pub mod decode;
pub mod pack;
pub mod pipeline;
pub mod record;
pub mod reject;
pub mod source;
pub mod tokenize;
pub mod train_tokenizer;
