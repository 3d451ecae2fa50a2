//! The record at hand in formats that are cut apart as they come: its bytes lie at the end of the
//! sink's batch until it ends, and of one that grows too long only the head stays.

use super::{BatchSink, DecodeError, DecodeOptions, Fault, Location, TextRange, batch::HEAD_BYTES};

/// How much of the record there was, and how much of it is in the batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    length: usize,
    held: usize,
}

impl Held {
    /// Bytes of the record, those that were let go included.
    pub(super) const fn length(self) -> usize {
        self.length
    }

    /// Its bytes in the batch.
    pub(super) fn range(self, sink: &mut BatchSink<'_>) -> TextRange {
        let end = sink.bytes().len();
        end - self.held..end
    }

    /// Appends bytes of the record. Once it is too long its memory is given back but for the head.
    pub(super) fn keep(&mut self, bytes: &[u8], options: &DecodeOptions, sink: &mut BatchSink<'_>) {
        self.length += bytes.len();
        let mut kept = bytes;
        if self.length > options.max_document_bytes {
            if self.held > HEAD_BYTES {
                let start = self.range(sink).start;
                sink.bytes().truncate(start + HEAD_BYTES);
                self.held = HEAD_BYTES;
            }
            kept = &bytes[..bytes.len().min(HEAD_BYTES - self.held)];
        }
        sink.bytes().extend_from_slice(kept);
        self.held += kept.len();
    }

    /// The fault of a record that is too long; `what` names its kind.
    pub(super) fn too_long(self, what: &str, options: &DecodeOptions) -> Option<Fault> {
        let most = options.max_document_bytes;
        (self.length > most).then(|| {
            let length = self.length;
            let message = format!(
                "the {what} has {length} bytes, more than data.max_document_bytes ({most})"
            );
            Fault::new("too_long", message)
        })
    }

    /// Takes the record out of the batch and notes it as rejected, to be found again by its head.
    pub(super) fn reject(
        self,
        location: Location,
        fault: Fault,
        sink: &mut BatchSink<'_>,
    ) -> Result<(), DecodeError> {
        let range = self.range(sink);
        let head: Vec<u8> = sink.bytes()[range.clone()].iter().take(HEAD_BYTES).copied().collect();
        sink.bytes().truncate(range.start);
        sink.reject(location, fault, &head)
    }
}
