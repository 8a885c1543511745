//! Writes output files: `-o FILE`, man pages.
//!
//! A regular file is replaced completely or stays unchanged. Anything else (a device, a FIFO, the target of
//! `/dev/stdout`) is written to, as by a shell's `>`, and never replaced.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};

use hangwatch_text::plain;

/// Who may read a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewFile {
    /// Only its owner.
    Private,
    /// Everyone that the umask allows.
    Shared,
}

/// What a path leads to, with links followed.
#[derive(Debug)]
enum Target {
    /// Nothing: a file can be created.
    Nothing(PathBuf),
    /// A regular file, which can be replaced.
    Plain(PathBuf, Metadata),
    /// Something to write to.
    Other,
}

/// The most symbolic links that are followed; the same as in the kernel.
const MOST_LINKS: usize = 40;

/// Whether writing to a path would replace the contents of a regular file.
///
/// # Errors
/// Errors of the kernel.
pub fn is_plain_file(path: &Path) -> io::Result<bool> {
    Ok(matches!(target(path)?, Target::Plain(..)))
}

/// Writes `bytes` to the file `path`.
///
/// A regular file is replaced atomically and keeps its mode and, if permitted, its owner. If its directory does
/// not permit that, it is overwritten. A directory is refused.
///
/// # Errors
/// Errors of the kernel. Then a regular file is unchanged, unless it had to be overwritten.
pub fn write(path: &Path, bytes: &[u8], new: NewFile) -> io::Result<()> {
    match target(path)? {
        Target::Other => write_through(path, bytes),
        Target::Nothing(place) => {
            let mode = match new {
                NewFile::Private => 0o600,
                NewFile::Shared => 0o666,
            };
            replace(&place, bytes, mode, None)
        }
        Target::Plain(place, before) => {
            let mode = before.permissions().mode() & 0o7777;
            match replace(&place, bytes, mode, Some(&before)) {
                Err(error) if cannot_be_replaced(&error) => overwrite(&place, bytes),
                replaced => replaced,
            }
        }
    }
}

/// Finds out what a path leads to.
fn target(path: &Path) -> io::Result<Target> {
    let mut place = path.to_owned();
    for _ in 0..MOST_LINKS {
        let found = match fs::symlink_metadata(&place) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Target::Nothing(place)),
            Err(error) => return Err(error),
        };
        if !found.is_symlink() {
            let is_plain = found.is_file();
            return Ok(if is_plain { Target::Plain(place, found) } else { Target::Other });
        }
        // An open file of a process, which must see what is written.
        if is_in_proc(&place) {
            return Ok(Target::Other);
        }
        let parent = place.parent().unwrap_or(Path::new("")).to_owned();
        place = parent.join(fs::read_link(&place)?);
    }
    Err(rustix::io::Errno::LOOP.into())
}

/// Whether a link is a magic link of the kernel, such as `/proc/self/fd/1`.
fn is_in_proc(link: &Path) -> bool {
    let parent = link.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = fs::canonicalize(parent.unwrap_or(Path::new(".")));
    parent
        .is_ok_and(|parent| parent.components().nth(1) == Some(Component::Normal("proc".as_ref())))
}

/// Writes to a file that is not regular, or is a process's open file.
fn write_through(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let flags = libc::O_NOCTTY | libc::O_CLOEXEC;
    // Append mode keeps what other processes have written to the open file.
    let mut file = OpenOptions::new().append(true).custom_flags(flags).open(path)?;
    file.write_all(bytes)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_block_device() { file.sync_all() } else { Ok(()) }
}

/// Replaces the file, or creates it.
fn replace(place: &Path, bytes: &[u8], mode: u32, before: Option<&Metadata>) -> io::Result<()> {
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".hangwatch-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(parent)
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                let why = format!(
                    "the directory {} does not exist",
                    plain(&parent.display().to_string())
                );
                io::Error::new(ErrorKind::NotFound, why)
            }
            kind => kind.into(), // without the temporary file's name, which nobody asked for
        })?;
    file.write_all(bytes)?;
    if let Some(before) = before {
        // Only root can give a file to another user; else this user owns the new file.
        let _ = fchown(file.as_file(), Some(before.uid()), Some(before.gid()));
        // After chown, which clears set-ID bits; chmod also ignores the umask.
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
    }
    file.as_file().sync_all()?;
    file.persist(place)?;
    // Makes the new name durable. Not every file system supports it, so errors are ignored.
    let _ = File::open(parent).and_then(|parent| parent.sync_all());
    Ok(())
}

/// Whether the directory prevents replacing the file: it is not ours, or the file is a mount point.
fn cannot_be_replaced(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ResourceBusy)
}

fn overwrite(place: &Path, bytes: &[u8]) -> io::Result<()> {
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let mut file = OpenOptions::new().write(true).custom_flags(flags).open(place)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_plain_file_is_replaced_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, b"first and longer", NewFile::Private).unwrap();
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o664)).unwrap();
        let mut open = File::open(&path).unwrap();
        write(&path, b"second", NewFile::Private).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"second".to_vec(), 0o664));
        let mut seen = String::new();
        open.read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "first and longer", "nobody sees half of it");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn links_are_followed_to_what_they_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("sub/file"), "before").unwrap();
        symlink("sub/file", at("link")).unwrap();
        symlink("link", at("link-to-link")).unwrap();
        symlink("sub/new", at("dangling")).unwrap();
        write(&at("link-to-link"), b"after", NewFile::Private).unwrap();
        write(&at("dangling"), b"new", NewFile::Private).unwrap();
        assert_eq!(fs::read(at("sub/file")).unwrap(), b"after");
        assert_eq!(fs::read(at("sub/new")).unwrap(), b"new");
        for link in ["link", "link-to-link", "dangling"] {
            assert!(fs::symlink_metadata(at(link)).unwrap().is_symlink(), "{link}");
        }
        symlink("loop", at("loop")).unwrap();
        assert!(write(&at("loop"), b"x", NewFile::Private).is_err());
    }

    #[test]
    fn what_is_no_plain_file_is_written_to_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        // Opened for both, so that open does not block.
        let mut ends = OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        assert!(!is_plain_file(&fifo).unwrap());
        write(&fifo, b"through", NewFile::Private).unwrap();
        let mut read = [0; 7];
        ends.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"through");
        assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
        assert!(write(dir.path(), b"x", NewFile::Private).is_err(), "a directory is refused");
    }

    #[test]
    fn a_process_open_file_is_appended_to_and_not_replaced() {
        use std::os::fd::AsRawFd;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut open = File::create(&path).unwrap();
        open.write_all(b"before, ").unwrap();
        let link = dir.path().join("stdout");
        symlink(format!("/proc/self/fd/{}", open.as_raw_fd()), &link).unwrap();
        write(&link, b"after", NewFile::Private).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"before, after");
        let inode = |metadata: Metadata| metadata.ino();
        let named = inode(fs::metadata(&path).unwrap());
        assert_eq!(named, inode(open.metadata().unwrap()), "it is the same file");
    }
}
