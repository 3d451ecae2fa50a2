//! Listing the remote files of a source: the rules of folders and globs, over addresses.

use super::{
    Container, Filters, InputFile, SourceError,
    list::{Lister, container_of, glob_set, is_archive, is_left_out},
};
use crate::fetch::{Address, FetchError, Fetcher, Found};
use std::{path::Path, sync::Arc};

/// The remote files that one path of a source names, sorted; their paths are where they will lie. And
/// the address of all of them, with its revision settled.
///
/// # Errors
/// If the path is no address, nothing is there, or the server cannot be asked.
pub fn list_remote(
    source_name: &str,
    text: &str,
    filters: &Filters,
    fetcher: &Fetcher,
) -> Result<(Address, Vec<InputFile>), SourceError> {
    let remote = |source| SourceError::Remote { source_name: source_name.to_owned(), source };
    let address = Address::parse(text).map_err(|e| remote(FetchError::Address(e)))?;
    let found = fetcher.list(&address).map_err(remote)?;
    let is_folder = !text.contains(['*', '?', '[', '{']);
    let lister = Lister { source_name, filters, exclude: glob_set(source_name, &filters.exclude)? };
    let mut files = Vec::new();
    for found in found {
        if found.named || lister.takes(&found.relative, is_folder) {
            files.push(lister.remote_file(found)?);
        }
    }
    if files.is_empty() {
        return Err(SourceError::Nothing {
            source_name: source_name.to_owned(),
            path: address.to_string().into(),
            problem: "holds no file that fits",
            hint: "check the pattern, the source's `extensions` and its `format`".to_owned(),
        });
    }
    let settled = files.first().and_then(|file| file.origin.as_ref()).map(|origin| {
        let pattern = address.pattern().unwrap_or_default();
        origin.address.with_path(pattern)
    });
    Ok((settled.unwrap_or(address), files))
}

impl Lister<'_> {
    /// Whether a file below a folder or under a pattern counts, as it would on a disk.
    fn takes(&self, relative: &str, is_folder: bool) -> bool {
        let path = Path::new(relative);
        let all = self.filters.extensions.is_empty() && self.filters.languages.is_empty();
        // Folders of a bucket hold data sets more often than code.
        let by_name = self.filters.container.or_else(|| container_of(path));
        let fits = match by_name {
            Some(container) if is_folder || !all => self.belongs(path, container),
            Some(_) => true,
            None => !is_folder,
        };
        fits && !relative.split('/').any(is_left_out) && !self.exclude.is_match(path)
    }

    fn remote_file(&self, found: Found) -> Result<InputFile, SourceError> {
        let name = found.origin.address.to_string();
        let by_name = || container_of(Path::new(found.origin.address.file_name()));
        let archive = is_archive(Path::new(found.origin.address.file_name()));
        let given = if archive { Some(Container::Tar) } else { self.filters.container };
        let container: Option<Container> = given.or_else(by_name);
        let container = container.ok_or_else(|| SourceError::Format {
            source_name: self.source_name.to_owned(),
            path: name.clone().into(),
        })?;
        let Found { path, bytes, origin, .. } = found;
        Ok(InputFile {
            path,
            name,
            container,
            bytes,
            origin: Some(Arc::new(origin)),
            vendored: false,
        })
    }
}
