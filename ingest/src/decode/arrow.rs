//! Arrow IPC, file and stream: batch by batch, only the wanted columns.

use super::{
    BatchSink, DecodeError, DecodeOptions, Fault,
    claims::Claims,
    columns::{Root, damaged, guarded, project, push_rows},
};
use crate::source::InputFile;
use polars_arrow::{
    array::Array,
    datatypes::ArrowSchema,
    io::ipc::read::{
        FileReader, StreamReader, StreamState, read_file_metadata, read_stream_metadata,
    },
    record_batch::RecordBatchT,
};
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const WHAT: &str = "Arrow file";
const FILE_MAGIC: &[u8] = b"ARROW1";

pub(super) fn decode(
    file: &InputFile,
    options: &DecodeOptions,
    sink: &mut BatchSink<'_>,
) -> Result<(), DecodeError> {
    let failed = |source: io::Error| DecodeError::Read { path: file.path.clone(), source };
    let reached = Arc::new(AtomicU64::new(0));
    let tracked =
        Tracked { file: File::open(&file.path).map_err(failed)?, reached: Arc::clone(&reached) };
    let mut reader = BufReader::new(tracked);
    let mut claims = Claims {
        reader: &mut File::open(&file.path).map_err(failed)?,
        bytes: file.bytes,
        limits: options.limits,
    };
    let mut rows = Rows { options, first_row: 0, reached, reported: 0 };
    let mut magic = Vec::new();
    (&mut reader).take(FILE_MAGIC.len() as u64).read_to_end(&mut magic).map_err(failed)?;
    reader.seek(SeekFrom::Start(0)).map_err(failed)?;
    if magic == FILE_MAGIC {
        decode_file(reader, &mut claims, &mut rows, sink)?;
    } else {
        claims.check_stream()?;
        decode_stream(reader, &mut rows, sink)?;
    }
    sink.consumed(file.bytes.saturating_sub(rows.reported));
    Ok(())
}

fn decode_file(
    mut reader: BufReader<Tracked>,
    claims: &mut Claims<'_, File>,
    rows: &mut Rows<'_>,
    sink: &mut BatchSink<'_>,
) -> Result<(), DecodeError> {
    let metadata =
        guarded(WHAT, || read_file_metadata(&mut reader).map_err(|e| damaged(WHAT, &e)))?;
    let blocks = metadata.blocks.iter().chain(metadata.dictionaries.iter().flatten());
    claims.check_blocks(blocks.map(|block| block.offset))?;
    let roots = whole(project(&metadata.schema, &rows.options.layout), &metadata.schema)?;
    let projection = roots.iter().map(|root| root.place).collect();
    let mut batches = FileReader::new(reader, metadata, Some(projection), None);
    while let Some(batch) =
        guarded(WHAT, || batches.next().transpose().map_err(|e| damaged(WHAT, &e)))?
    {
        rows.push(&batch, &roots, sink)?;
    }
    Ok(())
}

fn decode_stream(
    mut reader: BufReader<Tracked>,
    rows: &mut Rows<'_>,
    sink: &mut BatchSink<'_>,
) -> Result<(), DecodeError> {
    let metadata =
        guarded(WHAT, || read_stream_metadata(&mut reader).map_err(|e| damaged(WHAT, &e)))?;
    let roots = whole(project(&metadata.schema, &rows.options.layout), &metadata.schema)?;
    let projection = roots.iter().map(|root| root.place).collect();
    let mut batches = StreamReader::new(reader, metadata, Some(projection));
    while let Some(state) =
        guarded(WHAT, || batches.next().transpose().map_err(|e| damaged(WHAT, &e)))?
    {
        match state {
            StreamState::Some(batch) => rows.push(&batch, &roots, sink)?,
            // The end of the file where another message may begin is a legal end of the stream.
            StreamState::Waiting => break,
        }
    }
    Ok(())
}

/// IPC reads columns with all that is in them.
fn whole(roots: Result<Vec<Root>, Fault>, schema: &ArrowSchema) -> Result<Vec<Root>, DecodeError> {
    let mut roots = roots.map_err(DecodeError::Damaged)?;
    for root in &mut roots {
        if let Some((_, field)) = schema.get_at_index(root.place) {
            root.field = field.clone();
        }
    }
    Ok(roots)
}

struct Rows<'a> {
    options: &'a DecodeOptions,
    first_row: u64,
    reached: Arc<AtomicU64>,
    reported: u64,
}

impl Rows<'_> {
    fn push(
        &mut self,
        batch: &RecordBatchT<Box<dyn Array>>,
        roots: &[Root],
        sink: &mut BatchSink<'_>,
    ) -> Result<(), DecodeError> {
        let reached = self.reached.load(Ordering::Relaxed);
        sink.consumed(reached.saturating_sub(self.reported));
        self.reported = self.reported.max(reached);
        let rows = batch.len() as u64;
        let most = self.options.max_document_bytes;
        push_rows(&self.options.layout, roots, batch.arrays(), self.first_row, most, sink)?;
        self.first_row += rows;
        Ok(())
    }
}

/// A file that tells how far it has been read, for the progress.
struct Tracked {
    file: File,
    reached: Arc<AtomicU64>,
}

impl Read for Tracked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.reached.fetch_max(self.file.stream_position()?, Ordering::Relaxed);
        Ok(n)
    }
}

impl Seek for Tracked {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
