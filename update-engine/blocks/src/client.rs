//! Fetching the leaves of a new image with the help of those of older ones.

use crate::BlocksError;
use crate::index::Index;
use crate::leaves::{Leaves, run_id, runs};
use ashlar_fetch::{FetchError, Range, Request, Source};
use std::collections::HashMap;
use std::io::Read;

/// Runs that are needed and lie less than so many bytes apart are fetched by one request.
const GAP: u64 = 2048;

/// The leaves of `index`, whose file is at `path`. Runs that one of `have` has are taken from there. Gives also the
/// number of bytes that were fetched.
///
/// # Errors
/// The file is not what the index says, or cannot be had.
pub fn fetch_leaves(
    source: &dyn Source,
    path: &str,
    index: &Index,
    have: &[&Leaves],
) -> Result<(Leaves, u64), BlocksError> {
    if let Some((leaves, bytes)) = by_runs(source, path, index, have)?
        && leaves.digest() == index.leaves
    {
        return Ok((leaves, bytes));
    }
    // Two runs of one name, or a server that gives something else: the file as a whole tells which.
    let bytes = fetch(source, path, None, index.leaves_length())?;
    let fetched = bytes.len() as u64;
    let leaves = Leaves::from_bytes(&bytes).unwrap_or_default();
    let found = leaves.digest();
    if found != index.leaves || leaves.len() != index.blocks {
        return Err(BlocksError::Leaves { path: path.to_owned(), found, wanted: index.leaves });
    }
    Ok((leaves, fetched))
}

fn by_runs(
    source: &dyn Source,
    path: &str,
    index: &Index,
    have: &[&Leaves],
) -> Result<Option<(Leaves, u64)>, BlocksError> {
    let mut known: HashMap<([u8; 8], u16), &[[u8; 32]]> = HashMap::new();
    for run in have.iter().flat_map(|leaves| runs(leaves.as_slice())) {
        known.insert((run_id(run), u16::try_from(run.len()).unwrap_or(0)), run);
    }
    let mut bytes = Vec::new();
    let mut missing: Vec<Range> = Vec::new();
    for chunk in &index.chunks {
        let start = bytes.len() as u64;
        let length = u64::from(chunk.leaves) * 32;
        if let Some(run) = known.get(&(chunk.id, chunk.leaves)) {
            bytes.extend_from_slice(run.as_flattened());
            continue;
        }
        bytes.resize(bytes.len().saturating_add(usize::from(chunk.leaves) * 32), 0);
        match missing.last_mut() {
            Some(last) if start.saturating_sub(last.start + last.length) <= GAP => {
                last.length = start + length - last.start;
            }
            _ => missing.push(Range { start, length }),
        }
    }
    let mut fetched = 0u64;
    for range in missing {
        let part = fetch(source, path, Some(range), index.leaves_length())?;
        let whole = part.len() as u64 == index.leaves_length();
        let from = if whole { range.start } else { 0 };
        fetched = fetched.saturating_add(part.len() as u64);
        if whole {
            // The server knows no ranges.
            return Ok(Leaves::from_bytes(&part).map(|leaves| (leaves, fetched)));
        }
        let to = usize::try_from(range.start).ok().and_then(|start| {
            let length = usize::try_from(range.length).ok()?;
            bytes.get_mut(start..start.checked_add(length)?)
        });
        let from = usize::try_from(from).ok().and_then(|from| part.get(from..));
        match (to, from) {
            (Some(to), Some(from)) if to.len() == from.len() => to.copy_from_slice(from),
            _ => return Ok(None),
        }
    }
    Ok(Leaves::from_bytes(&bytes).map(|leaves| (leaves, fetched)))
}

fn fetch(source: &dyn Source, path: &str, range: Option<Range>, whole: u64) -> Result<Vec<u8>, BlocksError> {
    let body = source.open(&Request { path: path.to_owned(), range, max: whole })?;
    let mut bytes = Vec::new();
    let read = body.reader.take(whole.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| FetchError::Failed { path: path.to_owned(), reason: error.to_string() })?;
    Ok(bytes)
}
