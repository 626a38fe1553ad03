//! What makes files durable, and what takes them away. The only place of the archive that deletes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// How much is read at a time for a hash, in bytes.
const HASH_CHUNK_BYTES: usize = 256 * 1024;

/// Whether a file is lost by what the file system says of it. Anything else, as too many open files, no memory
/// or no permission, may pass.
pub(super) fn is_lost(error: &io::Error) -> bool {
    let input_output_error = error.raw_os_error() == Some(nix::errno::Errno::EIO as i32);
    error.kind() == io::ErrorKind::NotFound || input_output_error
}

/// Hashes a file.
pub(super) fn hash(file: &Path) -> io::Result<String> {
    let mut file = File::open(file)?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; HASH_CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            length => hasher.update(&chunk[..length]),
        };
    }
}

/// Makes a file of the archive and the names on the way to it durable. An error means that the disk is
/// damaged: it is never tried again.
pub(super) fn sync(archive: &Path, file: &Path) -> io::Result<()> {
    File::open(file)?.sync_all()?;
    folders(archive, file).try_for_each(sync_folder)
}

/// The folders on the way from the archive to a file, its own first.
pub(super) fn folders<'a>(archive: &'a Path, file: &'a Path) -> impl Iterator<Item = &'a Path> {
    file.ancestors()
        .skip(1)
        .take_while(move |folder| folder.starts_with(archive))
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes all that was written to the volume of `folder` durable, at once for all cameras.
pub(super) fn sync_volume(folder: &File) -> io::Result<()> {
    nix::unistd::syncfs(folder).map_err(io::Error::from)
}

/// Creates the folder of a file. Not durable before the file is.
pub(super) fn create_folder_of(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Takes a name that nobody has yet, so that two recordings can never overwrite each other.
pub(super) fn reserve(file: &Path) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(file)
        .map(drop)
}

/// Cuts a file off after `length` bytes.
pub(super) fn truncate(file: &Path, length: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(file)?;
    if file.seek(SeekFrom::End(0))? != length {
        file.set_len(length)?;
    }
    Ok(())
}

/// Deletes a file; that it is not there any more is fine.
pub(super) fn delete(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Moves a file to where it is not part of the archive any more; false if there is none.
pub(super) fn put_aside(file: &Path, kept: &Path) -> io::Result<bool> {
    create_folder_of(kept)?;
    match fs::rename(file, kept) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        renamed => renamed?,
    }
    kept.parent().map_or(Ok(()), sync_folder)?;
    Ok(true)
}

/// Deletes the oldest files below a folder until so many bytes are freed, and folders that are empty then.
pub(super) fn delete_oldest(folder: &Path, bytes: u64) -> io::Result<()> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    let mut at = 0;
    while let Some(folder) = folders.get(at).cloned() {
        at += 1;
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let found = entry.metadata()?;
            if found.is_dir() {
                folders.push(entry.path());
            } else {
                files.push((found.modified()?, entry.path(), found.len()));
            }
        }
    }
    files.sort_unstable();
    let mut freed = 0;
    for (_, file, length) in files {
        if freed >= bytes {
            break;
        }
        delete(&file)?;
        tracing::warn!(file = %file.display(), "the disk is full: a damaged recording is deleted");
        freed += length;
    }
    // The innermost first; that one is not empty is no error.
    for folder in folders.iter().rev() {
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

/// Bytes that are free on the volume of `folder`, for anybody.
pub(super) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let volume = nix::sys::statvfs::statvfs(folder)?;
    Ok(volume.blocks_available() * volume.fragment_size())
}
