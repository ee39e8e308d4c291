//! The zip format of `.safe` files, and nothing else: the only place that knows the `zip` crate.
//!
//! Reads into memory with every bound checked before and while unpacking, never to disk; so no name in an
//! archive ever meets the file system.

use super::package::{
    ARCHIVE_BYTES_MAX, Entry, FILE_BYTES_MAX, FILES_MAX, Package, PackageError, check_name, count, is_private,
};
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use zip::read::ZipArchive;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// A file this much smaller in the archive than unpacked is a bomb (text of one byte repeated reaches 1000).
const RATIO_MAX: u64 = 200;
/// Below this size the ratio says nothing.
const RATIO_FROM: u64 = 1024 * 1024;

/// All files of an archive under their names.
pub(super) fn read(bytes: &[u8]) -> Result<BTreeMap<String, Entry>, PackageError> {
    if bytes.len() > ARCHIVE_BYTES_MAX {
        return Err(PackageError::TooLarge(format!("the archive has more than {ARCHIVE_BYTES_MAX} bytes")));
    }
    let broken = |error: zip::result::ZipError| PackageError::NotAnArchive(error.to_string());
    // The directory is read whole before its length can be asked: count its records first. (Packed data may hold
    // the mark by chance, or another archive: hence the slack.)
    if bytes.split(|byte| *byte == b'P').skip(1).filter(|rest| rest.starts_with(b"K\x01\x02")).count() > 4 * FILES_MAX {
        return Err(PackageError::TooLarge(format!("more than {FILES_MAX} files")));
    }
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    if archive.len() > 2 * FILES_MAX {
        return Err(PackageError::TooLarge(format!("more than {FILES_MAX} files")));
    }
    if archive.has_duplicate_names() || archive.has_overlapping_entries().map_err(broken)? {
        return Err(PackageError::NotAnArchive("entries overlap or stand twice".into()));
    }
    let (mut files, mut total) = (BTreeMap::new(), 0);
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(broken)?;
        // Some programs of Windows separate folders in their own way, against the format's rule.
        let name = entry.name().map_err(broken)?.replace('\\', "/");
        let directory = name.ends_with('/');
        check_name(name.strip_suffix('/').unwrap_or(&name))?;
        if entry.encrypted() {
            return Err(PackageError::Kind { name, what: "encrypted" });
        }
        if entry.is_symlink() {
            return Err(PackageError::Kind { name, what: "a symbolic link" });
        }
        match entry.unix_mode().unwrap_or(0) & libc::S_IFMT {
            0 => {}
            libc::S_IFREG if !directory => {}
            libc::S_IFDIR if directory => {}
            _ => return Err(PackageError::Kind { name, what: "neither a file nor a folder" }),
        }
        if directory {
            continue;
        }
        let is_private = entry.unix_mode().is_some_and(is_private);
        let (packed, unpacked) = (entry.compressed_size(), entry.size());
        if unpacked > RATIO_FROM && unpacked / packed.max(1) > RATIO_MAX {
            return Err(PackageError::TooLarge(format!("'{name}' unpacks to more than {RATIO_MAX} times its size")));
        }
        count(&name, unpacked, &mut 0)?;
        let mut content = Vec::new();
        // What the directory says of the size may be a lie: the bound holds for what really comes.
        entry
            .take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut content)
            .map_err(|error| PackageError::NotAnArchive(format!("'{name}': {error}")))?;
        count(&name, content.len() as u64, &mut total)?;
        if files.insert(name.clone(), Entry { bytes: content, is_private }).is_some() {
            return Err(PackageError::Name { name, why: "stands twice" });
        }
    }
    Ok(files)
}

/// The archive of a package, everything under `name/`; no dates, so equal packages are equal bytes.
pub(super) fn write(package: &Package, name: &str) -> Result<Vec<u8>, PackageError> {
    let failed = |error: zip::result::ZipError| PackageError::NotAnArchive(error.to_string());
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (path, bytes) in package.files() {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default())
            .unix_permissions(package.mode(path));
        writer.start_file(format!("{name}/{path}"), options).map_err(failed)?;
        writer.write_all(bytes).map_err(|error| PackageError::NotAnArchive(error.to_string()))?;
    }
    Ok(writer.finish().map_err(failed)?.into_inner())
}
