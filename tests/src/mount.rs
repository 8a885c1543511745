//! Mounts that nobody else sees: in a mount namespace of the calling thread's own, and of the processes
//! that it starts from then on.
#![expect(unsafe_code, reason = "unshare, mount and umount")]

use std::ffi::CString;
use std::io;
use std::path::Path;

/// A mounted file system; unmounted when it is dropped.
pub struct Mount {
    directory: tempfile::TempDir,
}

impl Mount {
    /// Mounts a file system of this kind on a directory of its own.
    ///
    /// # Errors
    /// The kernel's: where no mount namespace is to be had, or not this file system.
    ///
    /// # Panics
    /// Where no directory is to be had.
    pub fn new(kind: &str, options: &str) -> io::Result<Mount> {
        let directory = tempfile::tempdir().unwrap();
        // SAFETY: no memory is involved.
        done(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        mount("none", Path::new("/"), libc::MS_REC | libc::MS_PRIVATE, "")?;
        mount(kind, directory.path(), libc::MS_NOSUID | libc::MS_NODEV, options)?;
        Ok(Mount { directory })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let target = path(self.directory.path());
        // SAFETY: the path is a string that ends.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

fn mount(kind: &str, target: &Path, flags: libc::c_ulong, options: &str) -> io::Result<()> {
    let (source, kind) = (CString::new("hangwatch-test")?, CString::new(kind)?);
    let (target, options) = (path(target), CString::new(options)?);
    // SAFETY: four strings that end.
    done(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast())
    })
}

fn path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).expect("a path has no zero byte")
}

fn done(rc: libc::c_int) -> io::Result<()> {
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
