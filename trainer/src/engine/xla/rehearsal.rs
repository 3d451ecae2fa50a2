//! Several processes without a plugin that can run one program over them.
//!
//! XLA's CPU plugin cannot, and TPUs are dear. In a rehearsal every process opens the whole mesh on a
//! plugin of its own, but holds only the buffers of its own places, as it would on a real one. To run a
//! program the processes lend each other their arguments; each runs all of it and keeps the results of
//! its own places. So everything but the execution is what happens on a real slice: which rows a process
//! reads, what it uploads and holds, how a checkpoint is gathered, and who writes what.

use super::{EngineError, session::Session};
use coda_pjrt::{Buffer, Element, ElementType, PjrtError};
use half::bf16;

/// The arguments of the places that other processes have, by place; nothing at this process's own.
pub(super) fn lend(
    session: &Session,
    arguments: &[&[Buffer]],
) -> Result<Vec<Vec<Buffer>>, EngineError> {
    let mut own = Vec::new();
    for place in 0..session.own_places().len() {
        for spread in arguments {
            append(&spread[place], &mut own)?;
        }
    }
    let processes = session.processes();
    let parts = processes.group.exchange("arguments", &own)?;
    let mut lent = Vec::new();
    for (process, part) in parts.iter().enumerate() {
        let mut rest = part.as_slice();
        for place in session.places_of(process) {
            let mut of_place = Vec::new();
            if process != processes.group.launch().process {
                for spread in arguments {
                    of_place.push(take(session, place, &spread[0], &mut rest)?);
                }
            }
            lent.push(of_place);
        }
    }
    Ok(lent)
}

/// The bytes of a buffer, at the end of `bytes`.
fn append(buffer: &Buffer, bytes: &mut Vec<u8>) -> Result<(), PjrtError> {
    match buffer.element() {
        ElementType::F32 => {
            bytes.extend(buffer.download::<f32>()?.into_iter().flat_map(f32::to_le_bytes));
        }
        ElementType::Bf16 => {
            bytes.extend(buffer.download::<bf16>()?.into_iter().flat_map(bf16::to_le_bytes));
        }
        _ => bytes.extend(buffer.download::<i32>()?.into_iter().flat_map(i32::to_le_bytes)),
    }
    Ok(())
}

/// A buffer like `like` at a place of the mesh, from the next bytes.
fn take(
    session: &Session,
    place: usize,
    like: &Buffer,
    rest: &mut &[u8],
) -> Result<Buffer, EngineError> {
    match like.element() {
        ElementType::F32 => upload(session, place, like, rest, f32::from_le_bytes),
        ElementType::Bf16 => upload(session, place, like, rest, bf16::from_le_bytes),
        _ => upload(session, place, like, rest, i32::from_le_bytes),
    }
}

fn upload<T: Element, const N: usize>(
    session: &Session,
    place: usize,
    like: &Buffer,
    rest: &mut &[u8],
    value: impl Fn([u8; N]) -> T,
) -> Result<Buffer, EngineError> {
    let count: usize = like.dims().iter().product();
    let Some((own, others)) = rest.split_at_checked(count * N) else {
        return Err(EngineError::Processes("a process lent too few arguments".to_owned()));
    };
    *rest = others;
    let (chunks, _) = own.as_chunks::<N>();
    let values: Vec<T> = chunks.iter().map(|bytes| value(*bytes)).collect();
    Ok(session.upload(place, &values, like.dims())?)
}
