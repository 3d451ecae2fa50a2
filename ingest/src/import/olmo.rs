//! Documents of a raw array: as the table beside it says, or between end tokens if there is none.

use super::{
    ImportError, flat,
    ids::{Document, IdFile},
};
use coda_shards::commit::FileError;
use flate2::read::MultiGzDecoder;
use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    path::Path,
};

/// A line of the table is a few numbers and names; what is longer is no table.
const MAX_LINE: u64 = 1 << 16;
/// How `numpy.save` begins a file: such a file is not the raw array that the format wants.
const NUMPY_MAGIC: &[u8] = b"\x93NUMPY";

/// Hands out the documents.
pub(super) fn documents(
    path: &Path,
    mut ids: IdFile,
    (eos, limit): (u32, u32),
    take: &mut dyn FnMut(&mut Document) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    refuse_header(path)?;
    let table = path.with_extension("csv.gz");
    let file = match File::open(&table) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return flat::documents(ids, (eos, limit), take);
        }
        opened => opened.map_err(|e| FileError::new("open", &table, e))?,
    };
    let mut lines = BufReader::new(MultiGzDecoder::new(BufReader::new(file)));
    let (mut line, mut number, mut document) = (String::new(), 0u64, Document::default());
    let mut next = 0;
    loop {
        line.clear();
        number += 1;
        let damaged =
            |problem: String| ImportError::damaged(&table, format!("line {number}"), problem);
        let read = lines.by_ref().take(MAX_LINE).read_line(&mut line);
        if read.map_err(|error| damaged(error.to_string()))? == 0 {
            break;
        }
        let (start, end) = bounds(&line).ok_or_else(|| {
            damaged("it does not begin with start and end of a document".to_owned())
        })?;
        // A gap would lose tokens without a word.
        if start != next || end < start || end > ids.len {
            return Err(damaged(format!(
                "the document {start}..{end} does not follow the one that ends at {next}, or passes \
                 the {} ids of the file",
                ids.len
            )));
        }
        next = end;
        document.clear();
        ids.read(start, end - start, |id| {
            document.push(id, limit);
            Ok(())
        })?;
        take(&mut document)?;
    }
    if next != ids.len {
        let problem = format!("its documents end at id {next} of {}", ids.len);
        return Err(ImportError::damaged(&table, "its last line", problem));
    }
    Ok(())
}

fn refuse_header(path: &Path) -> Result<(), ImportError> {
    let error = |e| FileError::new("read", path, e);
    let mut head = Vec::new();
    let file = File::open(path).map_err(error)?;
    file.take(NUMPY_MAGIC.len() as u64).read_to_end(&mut head).map_err(error)?;
    if head == NUMPY_MAGIC {
        let problem =
            "it has the header of numpy.save; OLMo-core's arrays are raw, for numpy.memmap";
        return Err(ImportError::damaged(path, "its start", problem));
    }
    Ok(())
}

/// The first two numbers of a line.
fn bounds(line: &str) -> Option<(u64, u64)> {
    let mut parts = line.trim_end().split(',');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
